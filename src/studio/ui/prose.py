"""What a model wrote, as safe HTML: Markdown without raw HTML, without remote pictures, with formulas and code.

Everything is made on this machine: markdown-it writes the HTML and escapes all other, Pygments colours code, and
latex2mathml turns formulas into MathML, which browsers draw themselves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape, unescape
from typing import Any
from xml.etree.ElementTree import Element, tostring

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

MAX_COLOURED = 20_000
_MATH = ((r"\[", r"\]", "block"), (r"\(", r"\)", "inline"), ("$$", "$$", "block"))
_MATHML = re.compile(
    r"^(math|m(i|n|o|s|text|space|row|frac|sqrt|root|sub|sup|subsup|under|over|underover|multiscripts|prescripts|table"
    r"|tr|td|style|error|padded|phantom|fenced|enclose)|semantics|none)$"
)
_KEPT = frozenset({"display", "stretchy", "fence", "separator", "mathvariant", "columnalign", "rowspacing", "width",
                   "linethickness", "minsize", "maxsize", "accent", "form", "movablelimits", "symmetric"})  # fmt: skip
_IMAGE = re.compile(r"!(?=\[)")


@lru_cache(maxsize=512)
def prose(text: str) -> str:
    """Markdown to HTML. Raw HTML in it is shown as text; pictures become links."""
    return str(_reader().render(_protect(text)))


@lru_cache(maxsize=1)
def _reader() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": True, "linkify": False, "highlight": _coloured})
    reader.enable(["table", "strikethrough"])
    reader.disable(["image", "html_block", "html_inline"])
    reader.inline.ruler.before("escape", "math", _math)
    reader.core.ruler.push("headings", _below_the_tab)
    reader.add_render_rule("math", _draw_math)
    reader.add_render_rule("link_open", _outside)
    return reader


def _below_the_tab(state: StateCore) -> None:
    """Headings of an answer go on below that of the tab, without a gap: the outermost are <h3>, whatever they were."""
    outer: list[str] = []
    for token in state.tokens:
        if token.type == "heading_open":
            while outer and outer[-1] >= token.tag:
                outer.pop()
            outer.append(token.tag)
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, 2 + len(outer))}"


def _protect(text: str) -> str:
    """A display formula that spans lines is joined, so that it is one piece for the inline rule."""
    for opening, closing in ((r"\[", r"\]"), ("$$", "$$")):
        pattern = re.escape(opening) + r"\s*\n(.{1,4000}?)\n\s*" + re.escape(closing)
        text = re.sub(pattern, lambda found: opening + found[1].replace("\n", " ") + closing, text, flags=re.DOTALL)  # noqa: B023
    return _IMAGE.sub("", text)


def _math(state: StateInline, silent: bool) -> bool:
    """``\\( \\)``, ``\\[ \\]`` and ``$$ $$``; a single dollar is money."""
    for opening, closing, kind in _MATH:
        if not state.src.startswith(opening, state.pos):
            continue
        end = state.src.find(closing, state.pos + len(opening))
        if end < 0 or end > state.posMax:
            return False
        if not silent:
            token = state.push("math", "", 0)
            token.content = state.src[state.pos + len(opening) : end].strip()
            token.meta = {"display": kind}
        state.pos = end + len(closing)
        return True
    return False


def _draw_math(_renderer: RendererHTML, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    return formula(tokens[index].content, tokens[index].meta["display"])


@lru_cache(maxsize=512)
def formula(source: str, display: str) -> str:
    """MathML; what the converter does not know is shown as it was written."""
    from latex2mathml.converter import convert_to_element

    try:
        return tostring(_tame(convert_to_element(source, display=display)), encoding="unicode", method="html")
    except Exception:  # noqa: BLE001 - the converter raises many kinds, and any text may come from a model
        return f"<code>{escape(source)}</code>"


def _tame(element: Element) -> Element:
    """Only MathML's own elements, without links; the converter writes entities as text and would leave them open."""
    if not _MATHML.match(element.tag):
        raise ValueError(f"{element.tag} is no MathML")
    element.attrib = {name: value for name, value in element.attrib.items() if name in _KEPT}
    element.text = unescape(element.text) if element.text else None
    element.tail = unescape(element.tail) if element.tail else None
    for child in element:
        _tame(child)
    return element


def _outside(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """A link opens in a new tab, which learns nothing of this page."""
    tokens[index].attrSet("target", "_blank")
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return str(renderer.renderToken(tokens, index, options, env))


def _coloured(code: str, language: str, _attributes: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    if not language or len(code) > MAX_COLOURED:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
