"""Markdown tables."""

from collections.abc import Iterable, Sequence

_RULES = {"l": "---", "r": "---:"}


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], align: str = "") -> str:
    """A table in Markdown.

    Args:
        heads: Heading of each column.
        rows: A cell for each column; bars in texts are escaped, and line breaks become spaces.
        align: "l" or "r" for each column, the last one for all that follow; all to the left unless given.
    """
    sides = (align or "l").ljust(len(heads), (align or "l")[-1])
    lines = [heads, [_RULES[side] for side in sides], *rows]
    return "\n".join("| " + " | ".join(_cell(str(cell)) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.splitlines()).replace("|", "\\|")
