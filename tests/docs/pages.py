"""The pages of the documentation and their code blocks."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("space/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


class Block(NamedTuple):
    """A fenced code block; `reason` says why the tests don't run it: the comment `<!-- not run: reason -->` above."""

    language: str
    code: str
    line: int
    reason: str


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced code blocks of one language."""
    text = page.read_text(encoding="utf-8")
    fence = rf"(?:^<!-- not run: ([^>]*) -->\n\n)?^```{language}\n(.*?)^```"
    return [
        Block(language, found[2], text[: found.start(2)].count("\n"), found[1] or "")
        for found in re.finditer(fence, text, re.M | re.S)
    ]
