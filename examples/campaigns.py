"""Real parallel text with an open vocabulary from Debian packages: dialogue in seven languages, and example sentences.

    python examples/campaigns.py --out campaigns [--languages es fr de it pt ru ca] [--words 3 12] [--root FOLDER]

The campaigns of Battle for Wesnoth (GPL-2+) are translated as gettext catalogs, wesnoth-1.16-*; the
German-English dictionary Ding (trans-de-en, GPL-2+) has example sentences. The packages are downloaded with
apt-get (or taken from --root, where they are unpacked or installed); unitweave contains nothing of them.
Strings of several sentences are split where both sides have equally many. Markup is removed; sentences with
variables, with a number of words outside of --words on either side, or without a translation are dropped.

OUT/LANGUAGE.tsv and OUT/all.tsv (all languages) are inputs for `corpus.synthesized.text` and `lm.extra_text` of a
recipe. The number of English sentences that all languages have in common is printed: dev and test come from those.
"""

import argparse
import html
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from debian import fetch

CAMPAIGNS: tuple[str, ...] = ("did", "dm", "dw", "ei", "httt", "l", "low", "nr", "sof", "sota", "sotbe", "thot", "trow")
CAMPAIGNS += ("tsg", "ttb", "utbs")
DICTIONARY = "trans-de-en"
LOCALES = {"es": "es", "fr": "fr", "de": "de", "it": "it", "pt": "pt_BR", "ru": "ru", "ca": "ca"}
COLUMNS = ("src_lang", "tgt_lang", "src_text", "tgt_text", "origin")

_TAG = re.compile(r"<[^<>]*>")
# Characters that a sentence may contain; variables ($name), format codes and lists bring other characters.
_PLAIN = re.compile(r"[\w\s.,;:!?'’‘\"“”„«»‹›¿¡…—–‑-]+")
_END = re.compile(r"(?<=[.!?…])[\"”“»’']*\s+(?=[\"“„«‘'¿¡—–-]*\s*[^\W\d_a-zà-öø-ÿа-яё])")
_WORD = re.compile(r"\w*[^\W\d_]\w*(?:[’'‑-]\w+)*|\d+")
_EDGE = ' \t\n"“”„«»‹›—–-'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for packages and tables")
    parser.add_argument("--languages", nargs="+", choices=tuple(LOCALES), default=list(LOCALES))
    parser.add_argument("--root", type=Path, help="folder in which the packages are unpacked; / if they are installed")
    parser.add_argument("--words", nargs=2, type=int, default=(3, 12), metavar=("MIN", "MAX"), help="default: 3 12")
    parser.add_argument("--no-names", action="store_true", help="drop English sentences that seem to contain a name")
    options = parser.parse_args()
    if not 1 <= options.words[0] <= options.words[1]:
        parser.error("--words takes the minimum and the maximum number of words of a sentence: --words 3 12")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        root = options.root or fetch(
            options.out / "packages", [*(f"wesnoth-1.16-{name}" for name in CAMPAIGNS), DICTIONARY]
        )
        tables = {code: dict(read(root, code, tuple(options.words), options.no_names)) for code in options.languages}
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        print(f"campaigns.py: {error}", file=sys.stderr)
        return 2
    common = set.intersection(*(set(table) for table in tables.values()))
    for code, table in tables.items():
        write(options.out / f"{code}.tsv", {code: table})
        counts: dict[str, int] = {}
        for _, origin in table.values():
            counts[origin] = counts.get(origin, 0) + 1
        print(f"{code}: {len(table)} pairs ({', '.join(f'{name} {n}' for name, n in sorted(counts.items()))})")
    write(options.out / "all.tsv", tables)
    print(f"English sentences that all of them have: {len(common)}")
    print(f"\n{options.out}/all.tsv; go on with a recipe that says\n")
    languages = ", ".join(options.languages[:2])
    print(f"  corpus: {{synthesized: {{text: {options.out}/all.tsv, languages: [{languages}], dev: 60, test: 120}}}}")
    return 0


def read(root: Path, code: str, words: tuple[int, int], no_names: bool) -> Iterator[tuple[str, tuple[str, str]]]:
    """English sentence -> (its translation, where it is from); the first translation of a sentence counts."""
    seen: set[str] = set()
    for origin, english, other in strings(root, code):
        for source, target in sentences(other, english, words):
            if target not in seen and not (no_names and has_name(target)):
                seen.add(target)
                yield target, (source, origin)
    if not seen:
        raise ValueError(f"{root}: no sentence in {code}; are the packages unpacked there?")


def strings(root: Path, code: str) -> Iterator[tuple[str, str, str]]:
    """(origin, English, translation) of every string."""
    for name in CAMPAIGNS:
        for path in sorted(
            root.glob(f"usr/share/games/wesnoth/*/locale/{LOCALES[code]}/LC_MESSAGES/wesnoth-{name}.mo")
        ):
            for english, other in read_mo(path):
                yield "wesnoth", english.rpartition("^")[2], other
    if code == "de":
        for path in root.glob("usr/share/trans/de-en"):
            yield from (("ding", english, german) for german, english in read_dictionary(path))


def read_mo(path: Path) -> Iterator[tuple[str, str]]:
    """Message and translation of a gettext catalogue; its header and plural forms are left out."""
    data = path.read_bytes()
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None:
        raise ValueError(f"{path}: no gettext catalogue")
    count, originals, translations = struct.unpack_from(f"{order}3I", data, 8)
    for i in range(count):
        texts = []
        for table in (originals, translations):
            length, at = struct.unpack_from(f"{order}2I", data, table + 8 * i)
            texts.append(data[at : at + length].decode("utf-8"))
        message = texts[0].rpartition("\x04")[2]  # what stands before is the message's context
        if message and "\0" not in message:
            yield message, texts[1]


def read_dictionary(path: Path) -> Iterator[tuple[str, str]]:
    """German and English items of Ding's dictionary: 'a | b :: A | B', remarks in brackets dropped."""
    for line in path.read_text(encoding="utf-8").splitlines():
        german, separator, english = line.partition("::")
        sides = [re.sub(r"\{[^{}]*\}|\[[^\[\]]*\]", " ", side).split("|") for side in (german, english)]
        if not separator or len(sides[0]) != len(sides[1]):
            continue
        for one, other in zip(*sides, strict=True):
            variants = one.split(";"), other.split(";")
            if len(variants[0]) == len(variants[1]):
                yield from zip(*variants, strict=True)
            elif all(variants):
                yield variants[0][0], variants[1][0]


def sentences(source: str, target: str, words: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """The sentences of a string and of its translation, where both have as many, and each is fit to be spoken."""
    split = [[part.strip(_EDGE) for part in _END.split(clean(text))] for text in (source, target)]
    if len(split[0]) == len(split[1]):
        for one, other in zip(*split, strict=True):
            if fit(one, words) and fit(other, words) and one.casefold() != other.casefold():
                yield one, other


def clean(text: str) -> str:
    """The text on one line, without markup."""
    return " ".join(_TAG.sub(" ", html.unescape(text)).replace("...", "…").split())


def fit(text: str, words: tuple[int, int]) -> bool:
    """Whether a text is a whole sentence of the right length with nothing unspeakable in it."""
    if not text or not _PLAIN.fullmatch(text) or "_" in text or text[-1] not in ".!?…":
        return False
    return text.lstrip("¿¡'’‘")[:1].isupper() and words[0] <= len(_WORD.findall(text)) <= words[1]


def has_name(english: str) -> bool:
    """Whether a word that is not the first begins with a capital letter."""
    words = _WORD.findall(english)[1:]
    return any(word[0].isupper() and word.split("'")[0].split("’")[0] not in ("I", "God", "English") for word in words)


def write(path: Path, tables: dict[str, dict[str, tuple[str, str]]]) -> None:
    """The sentences of each language's table as tab-separated values."""
    with path.open("w", encoding="utf-8") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for code, table in tables.items():
            for english, (other, origin) in table.items():
                file.write("\t".join((code, "en", other, english, origin)) + "\n")


if __name__ == "__main__":
    sys.exit(main())
