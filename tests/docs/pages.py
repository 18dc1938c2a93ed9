"""What stands in the documentation: code blocks, code in the text, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.conftest import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
_MARKDOWN = MarkdownIt("commonmark").enable("table")


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        page: its file.
        line: of its first line of code, from 1.
        language: the word behind the fence; ``indented`` for a block without a fence.
        code: as it stands there.
    """

    page: Path
    line: int
    language: str
    code: str

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    for token in _tokens(page):
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            fenced = token.type == "fence"
            yield Block(page, token.map[0] + 1 + fenced, token.info.strip() if fenced else "indented", token.content)


def spans_of(page: Path) -> list[str]:
    """Code inside of sentences."""
    return [part.content for part in _inside(page) if part.type == "code_inline"]


def emphasised_in(page: Path) -> list[str]:
    """What a page sets in bold or italics as a name; not whole sentences, numbered steps and what a program says."""
    found = []
    for token in _tokens(page):
        parts = token.children or []
        for before, part, after in zip(parts, parts[1:], parts[2:], strict=False):
            opens = before.type in ("strong_open", "em_open") and after.type in ("strong_close", "em_close")
            if opens and not re.match(r'[0-9"]|.*\.$', part.content):
                found.append(part.content)
    return found


def links_of(page: Path) -> list[str]:
    """Where links and pictures point."""
    found = [part.attrGet("href") or part.attrGet("src") for part in _inside(page)]
    sized = [re.findall(r'<img src="([^"]+)"', token.content) for token in _tokens(page) if token.type == "html_block"]
    return [str(target) for target in found if target] + [target for targets in sized for target in targets]


def anchors_of(page: Path) -> set[str]:
    """What a link can name in a page: its headings, as code platforms write them."""
    tokens = _tokens(page)
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _tokens(page: Path) -> list[Token]:
    return _MARKDOWN.parse(page.read_text(encoding="utf-8"))


def _inside(page: Path) -> Iterator[Token]:
    for token in _tokens(page):
        yield from token.children or []
