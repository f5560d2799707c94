"""Films by FramePack: a minute of film in sections, each of which is kept as soon as it is made.

Read in this order: ``params`` (what may be asked), ``catalogued`` (what the catalogue says of a model), ``sections``
(the arithmetic of a film), ``request`` (a request made definite), ``footprint`` (what it takes), ``assemble`` (from
files to networks), ``encoding`` and ``sampling`` (the loop), ``stepcache``, ``filming`` and ``kept`` (sections to the
disk, and on from there), ``family`` (all of it under the contract).
"""
