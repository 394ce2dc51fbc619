"""Notes as HTML: CommonMark with tables, and nothing that could act. Raw HTML is text, odd links are none."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

CHARACTERS_MAX = 100_000
_LEVELS_DOWN = 2  # the page has its own first heading, the section its second


def markdown(text: str) -> Markup:
    """The HTML of a note. Text past 100,000 characters is left out."""
    parser = _parser()
    tokens = parser.parse(text[:CHARACTERS_MAX])
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(int(token.tag[1]) + _LEVELS_DOWN, 6)}"
        for child in token.children or ():
            if child.type == "link_open":
                child.attrSet("rel", "noopener noreferrer nofollow")
        if token.type in {"th_open", "td_open"}:
            # Alignment comes as an inline style, which the content security policy does not allow.
            token.attrs.pop("style", None)
            if token.type == "th_open":
                token.attrSet("scope", "col")
    return Markup(parser.renderer.render(tokens, parser.options, {}))


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # heavy: imported late

    # Without images: they would be fetched from wherever a note says, or fail under our policy.
    return (
        MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"]).disable("image")
    )
