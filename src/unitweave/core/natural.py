"""Natural text beside normalized text: which normalized words each piece of a running text stands for.

A word between spaces may stand for none ("–"), one ("¡Hola!"), or several ("1.234", "e.g.", "well-known"); several
may stand for one number together ("1 234"); and a run of a script without spaces is cut into its clusters. Pure
functions.
"""

import itertools
import re
import unicodedata
from dataclasses import dataclass

from unitweave.core.scripts import (
    cluster_starts,
    follows_wide_punctuation,
    join_words,
    split_clusters,
    without_invisible,
)
from unitweave.core.text import normalize

_IN_NUMBER = r"(?<=\d)[\u00a0\u202f\u2009](?=\d)"  # a space that groups digits in every language
_MAX_GROUP = 6  # pieces of a running text that may be normalized together: the groups of a long number


@dataclass(frozen=True)
class TextPiece:
    """A piece of a running text.

    Attributes:
        text: With the space before it, where there is one; the pieces of a text add up to it.
        words: How many normalized words it stands for.
    """

    text: str
    words: int


def clean_text(text: str) -> str:
    """A natural text on one line: in NFC, with single spaces, without characters that nobody sees.

    A no-break space between digits stays: it makes one number of them.
    """
    visible = without_invisible(text, keep_joiners=True)
    return unicodedata.normalize("NFC", re.sub(rf"(?!{_IN_NUMBER})\s+", " ", visible).strip())


def normalized_pieces(text: str) -> list[TextPiece]:
    """The pieces of a normalized text as running text, one for each word."""
    running = join_words(text)
    pieces, at = [], 0
    for word in text.split():
        end = running.index(word, at) + len(word)
        pieces.append(TextPiece(running[at:end], 1))
        at = end
    return pieces


def comparable_text(text: str, language: str, natural: bool) -> str:
    """What a model wrote, as normalized references are written.

    Args:
        text: Its text.
        language: Code of the language.
        natural: Whether it writes natural text; normalized text is only cut into its words.
    """
    return normalize(text, language) if natural else split_clusters(text)


def natural_pieces(text: str, language: str) -> list[TextPiece]:
    """The pieces of a natural text, each with the number of normalized words that it stands for.

    Args:
        text: Any text.
        language: Its code.

    Returns:
        Pieces that add up to `clean_text(text)`. Their numbers add up to the words of the normalized text, and each
        piece on its own normalizes to its words. Every piece stands for a word at least, unless the text has none.
    """
    text = clean_text(text)
    words = normalize(text, language).split()
    atoms = _atoms(text)
    alone = [normalize(atom, language).split() for atom in atoms]
    if [word for spoken in alone for word in spoken] == words:
        pieces = [TextPiece(atom, len(spoken)) for atom, spoken in zip(atoms, alone, strict=True)]
    else:
        pieces = _aligned(atoms, words, language)
    return _attached(pieces)


def _atoms(text: str) -> list[str]:
    """The text cut before each space, and into the clusters of scripts without spaces."""
    cuts = {i for i, character in enumerate(text) if character == " "}
    if not text.isascii():
        cuts |= {i for i in cluster_starts(text) if text[i - 1] != " "}
        cuts |= {i for i in range(len(text)) if follows_wide_punctuation(text, i)}
    edges = [0, *sorted(cuts - {0}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges) if a < b]


def _aligned(atoms: list[str], words: list[str], language: str) -> list[TextPiece]:
    """As many groups of neighboring atoms as possible that, normalized one by one, give the words."""
    # best[i]: words that the first i atoms account for -> (groups, atoms and words before the last group)
    best: list[dict[int, tuple[int, int, int]]] = [{} for _ in range(len(atoms) + 1)]
    best[0][0] = (0, 0, 0)
    for i in range(len(atoms)):
        for j in range(i + 1, min(i + _MAX_GROUP, len(atoms)) + 1 if best[i] else i + 1):
            spoken = normalize("".join(atoms[i:j]), language).split()
            for before, (groups, _, _) in best[i].items():
                after = before + len(spoken)
                if words[before:after] == spoken and groups + 1 > best[j].get(after, (0, 0, 0))[0]:
                    best[j][after] = (groups + 1, i, before)
    if len(words) not in best[-1]:
        return [TextPiece("".join(atoms), len(words))]
    pieces, at, count = [], len(atoms), len(words)
    while at:
        _, i, before = best[at][count]
        pieces.append(TextPiece("".join(atoms[i:at]), count - before))
        at, count = i, before
    return pieces[::-1]


def _attached(pieces: list[TextPiece]) -> list[TextPiece]:
    """Pieces without words joined to the one before; opening marks, and what begins a text, to the one behind."""
    result: list[TextPiece] = []
    waiting = ""
    for piece, following in itertools.zip_longest(pieces, pieces[1:]):
        if not piece.words and (not result or waiting or _opens(piece.text, following.text if following else " ")):
            waiting += piece.text
        elif not piece.words:
            result[-1] = TextPiece(result[-1].text + piece.text, result[-1].words)
        else:
            result.append(TextPiece(waiting + piece.text, piece.words))
            waiting = ""
    if waiting and result:
        result[-1] = TextPiece(result[-1].text + waiting, result[-1].words)
    elif waiting:
        result = [TextPiece(waiting, 0)]
    return result


def _opens(text: str, following: str) -> bool:
    sign = (text[-1] in "#§№±" or unicodedata.category(text[-1]) == "Sc") and not following.startswith(" ")
    return sign or text[-1] in "¿¡" or unicodedata.category(text[-1]) in ("Ps", "Pi")
