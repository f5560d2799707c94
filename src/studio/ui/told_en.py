"""What the engine says, on the English page: parameters by their labels, and tabs in place of commands.

The engine speaks to whoever uses the command line (``--max-tokens``, ``studio models pull``). ``messages_en.yaml``,
beside this file and beside each family, holds only the sentences that must be put otherwise; all the rest stays as it
is, with labels for the names of parameters.
"""

from __future__ import annotations

import re

from studio.ui.told import Teller

FILE = "messages_en.yaml"

# What is quoted may be anybody's words; a flag; a name with a line in it; a name that begins a sentence.
_NAMED = re.compile(
    r"""(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)|(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])"""
    r"""|(?<![\w./-])[a-z]+(?:_[a-z]+)+(?![\w/-])|(?:^|(?<=[.;] ))[a-z_]+(?:\.\d+)*(?=: | is | has )"""
)


class EnglishTeller(Teller):
    """Says English sentences as the English page says them."""

    def _say(self, text: str) -> str:
        return _NAMED.sub(lambda found: self._label(found[0]), super()._say(text))

    def _label(self, name: str) -> str:
        """“Steps” for ``--steps``, ``steps`` or ``steps.0``; what is no parameter or is quoted as it stands."""
        plain, dot, rest = name.removeprefix("--").replace("-", "_").partition(".")
        label = self.labels.get(plain) or self.labels.get(plain.removeprefix("no_"))
        return f"“{label}”{dot}{rest}" if label else name

    def _value(self, value: str, kind: str, tries: list[int]) -> str | None:
        return self._label(value.strip("'")) if kind == "field" else value
