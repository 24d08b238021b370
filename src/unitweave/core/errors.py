"""The exceptions that stand for bad input."""

import contextlib
import re
from collections.abc import Iterator

_LONGEST = 400  # characters of another library's message: some list all weights of a model
_LONGEST_LINE = 1000  # characters of an error at the terminal: some repeat what they were given


class InputError(Exception):
    """What the user gave cannot be used: the message says what, where and what to do, in one line.

    The command line prints the message alone and exits with code 2. Any other exception that
    reaches the terminal is a bug in unitweave.
    """


class AudioError(InputError):
    """A recording that cannot be used; `problem` says in a few words why, the same words for the same cause."""

    def __init__(self, name: str, problem: str, detail: str = "") -> None:
        self.problem, self.detail = problem, detail
        super().__init__(f"{name}: {problem}" + (f" ({detail})" if detail else ""))


@contextlib.contextmanager
def error_prefix(what: str) -> Iterator[None]:
    """Put the setting, or whatever a block is about, before what it refuses; once where that names it already."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if str(error).startswith(what) else f"{what}: {error}") from None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, if need be cut, or the error's name where it has none."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def in_one_line(error: Exception) -> str:
    """An error's whole message, without line breaks, or the error's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    """A text with its control characters escaped: a name with a line break makes no second line, nor colors.

    A very long one is cut in its middle: what to do stands at the end.
    """
    if len(text) > _LONGEST_LINE:
        text = f"{text[: _LONGEST_LINE // 2]} ... {text[-_LONGEST_LINE // 3 :]}"
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), text)
