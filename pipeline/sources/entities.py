"""HTML entities in texts, such as `&amp;`: those that were hardly meant are found, and resolved where a recipe asks.

Captions of the web are often cut out of pages and never decoded. A text with tags is HTML itself, where entities
belong, and is not reported. What has no semicolon is no entity here: `a && b`, `x & y` of LaTeX and `?a=1&copy=2` of
an address stay what they are. Blanks such as `&nbsp;` and `&ensp;` become plain spaces: they set a page, and tokenizers
have other tokens for U+00A0 than for a space.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from dataclasses import replace
from html.entities import html5

from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page

ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
USUAL = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|quot|apos|lt|gt|nbsp|hellip|bull|middot|deg|copy|reg|trade|szlig"
    r"|[lr][sd]?quo|[lr]aquo|[nm]dash|[A-Za-z](?:acute|grave|circ|uml|tilde|cedil|ring|slash));"
)
"""Those that captions have. Names such as `&sum;` are also what code may hold."""


def resolve_entities(page: Page) -> Page:
    """The page with the characters that entities in its texts stand for, each resolved once.

    A paragraph that held nothing but blanks goes, where others say something; see `holds_blanks` for the rest.
    """
    nodes = tuple(_resolve_node(node) for node in page.nodes)
    if nodes == page.nodes:
        return page
    kept = tuple(node for node in nodes if node.text is None or node.text.strip() or node.role != "none")
    return replace(page, nodes=kept if any(node.text is not None for node in kept) else nodes)


def holds_blanks(page: Page) -> bool:
    """Whether a page has texts to learn, and all of them are blank."""
    told = [node.text for node in page.nodes if node.supervised and node.text is not None]
    return bool(told) and not any(map(str.strip, told))


def find_entities(texts: Iterable[str]) -> str:
    """The first entity that was hardly meant to stand in one of these texts; empty where there is none."""
    for text in texts:
        if "&" in text and (found := USUAL.search(text)) and not TAG.search(text):
            return found[0]
    return ""


def _resolve_node(node: Node) -> Node:
    if node.text is None or "&" not in node.text:
        return node
    text = ENTITY.sub(_resolve_one, node.text)
    return node if text == node.text else replace(node, text=text)


def _resolve_one(found: re.Match[str]) -> str:
    """The characters of an entity by HTML's list, of a blank beyond ASCII a space; what is not on the list stays."""
    name = found[0][1:]
    text = html.unescape(found[0]) if name.startswith("#") else html5.get(name, found[0])
    return " " if text.isspace() and not text.isascii() else text
