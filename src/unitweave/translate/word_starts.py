"""Which tokens of a text tokenizer begin a word, in scripts with and without spaces."""

import re
from functools import cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from unitweave.core.scripts import cluster_starts

_SPACES = ("Ġ", "▁", " ")  # how byte-level and SentencePiece vocabularies write the space before a word


def word_starts(tokenizer: PreTrainedTokenizerBase, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that begin a word.

    Args:
        tokenizer: The tokenizer.
        size: How many of its tokens to look at.

    Returns:
        bool [size]: those with a space before them; and those that begin a word: these, and in scripts without spaces
        those that begin with a letter of their own. In a vocabulary that knows no spaces all tokens do.
    """
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(range(size)))]
    spaced = np.array([piece.startswith(_SPACES) for piece in pieces])
    if not spaced.any():
        return spaced, np.ones(size, bool)
    byte_level = any(piece.startswith("Ġ") for piece in pieces)
    begins = [not piece.isascii() or piece.startswith("<0x") for piece in pieces]
    for i in np.flatnonzero(begins):
        begins[i] = not spaced[i] and _begins_cluster(_piece_bytes(pieces[i], byte_level))
    return spaced, spaced | np.array(begins)


def _piece_bytes(piece: str, byte_level: bool) -> bytes:
    single = re.fullmatch("<0x([0-9A-F]{2})>", piece)
    if single:
        return bytes.fromhex(single[1])
    alphabet = _byte_alphabet()
    if byte_level and all(character in alphabet for character in piece):
        return bytes(alphabet[character] for character in piece)
    return piece.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """The letter of each byte in byte-level vocabularies: itself where it can be printed, else one from U+0100 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printed))
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


@cache
def _begins_cluster(text: bytes) -> bool:
    """Whether a text begins, or with more bytes can begin, with a letter of a script without spaces."""
    length = 1 if text[0] < 0xC0 else 2 if text[0] < 0xE0 else 3 if text[0] < 0xF0 else 4
    head = text[:length]
    if len(head) == length:
        # Behind an ideograph, a mark or a vowel that belongs to the letter before would begin no cluster.
        return 1 in cluster_starts("字" + head.decode(errors="replace")) and _is_letter(head)
    if text[0] < 0xE0:
        return False
    missing = length - len(head) - 1
    return any(_begins_cluster(head + bytes([byte]) + b"\x80" * missing) for byte in range(0x80, 0xC0))


def _is_letter(character: bytes) -> bool:
    return len(cluster_starts("a" + character.decode(errors="replace"))) > 0
