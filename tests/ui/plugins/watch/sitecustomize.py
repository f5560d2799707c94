"""Read by every Python that a page server starts: no socket of it may go anywhere but to this machine.

What is tried is refused and written to the file that ``STUDIO_TEST_OUTGOING`` names.
"""

import os
import socket
import sys
from pathlib import Path

_HERE = ("127.", "::1", "localhost", "0.0.0.0")  # noqa: S104 - compared, not bound
_FILE = os.environ.get("STUDIO_TEST_OUTGOING")


def _watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else ""
    elif event == "socket.sendto":
        host = arguments[1][0] if isinstance(arguments[1], tuple) else ""
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else str(host or "")
    if host and not host.startswith(_HERE) and host != socket.gethostname():
        with Path(_FILE).open("a") as file:
            file.write(f"{event} {host} by {' '.join(sys.argv)[:80]}\n")
        raise OSError(f"a test forbids the network: {host}")


if _FILE:
    sys.addaudithook(_watch)
