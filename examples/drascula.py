"""Human parallel speech: the Spanish and English dubs of the game Drascula, out of Debian packages.

    python examples/drascula.py --out drascula [--root FOLDER] [--min-words 3]

The same lines were acted in both languages, ten characters by name; the subtitles are the transcripts. The packages
(drascula, drascula-spanish and scummvm-data; freeware that may be passed on and changed with its notice, see their
copyright files) are downloaded with apt-get, or taken from --root, where they are unpacked or installed. OUT/lines.csv
is the input of `unitweave corpus table`; OUT/spanish.csv has the same rows without the English recordings, for
translations that one voice is to speak.

Characters are the speakers. Three of them, among them the only woman, are the test split, two the dev split; the others
are for training. A few Spanish files hold the English take: recordings that correlate are dropped. Lines without a
subtitle or with fewer words on either side are skipped. The Spanish subtitles have no accents, the translation is free,
and the humor is for adults.
"""

import argparse
import csv
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
from debian import fetch

PACKAGES = ("drascula", "drascula-spanish", "scummvm-data")
RATE, HEADER, FOOTER = 11_025, 32, 64  # Hz; bytes before and after the samples of an .ALS file
TABLES_AT = 0x1C53  # where the texts begin in drascula.dat
TABLES = ("text", "textd", "textb", "textbj", "texte", "texti", "textl", "textp", "textt", "textvb")  # in their order
LANGUAGES = {"en": 0, "es": 1}  # places among the languages of each table
# The letters before the number of a file: its text table, its character, its split.
CHARACTERS = {
    "": ("text", "hero", "train"),
    "D": ("textd", "dracula", "train"),
    "VB": ("textvb", "von-braun", "train"),
    "L": ("textl", "werewolf", "train"),
    "E": ("texte", "monster", "train"),
    "P": ("textp", "pianist", "dev"),
    "B": ("textb", "drunk", "dev"),
    "I": ("texti", "igor", "test"),
    "BJ": ("textbj", "billie-jean", "test"),
    "T": ("textt", "bartender", "test"),
}
SAME_TAKE = 0.5  # correlation from which two recordings are the same one; different takes stay below 0.2
COLUMNS = ("id", "split", "src_lang", "tgt_lang", "src_audio", "tgt_audio", "src_text", "tgt_text", "speaker")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for packages, recordings and lines.csv")
    parser.add_argument("--root", type=Path, help="folder in which the packages are unpacked; / if they are installed")
    parser.add_argument("--min-words", type=int, default=3, help="skip lines with fewer words on either side")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        root = options.root or fetch(options.out / "packages", PACKAGES)
        rows, skipped = pairs(root / "usr/share/scummvm", options.out, options.min_words)
    except (OSError, struct.error, subprocess.CalledProcessError) as error:
        print(f"drascula.py: {error}", file=sys.stderr)
        return 2
    for name, columns in (("lines.csv", COLUMNS), ("spanish.csv", [c for c in COLUMNS if c != "tgt_audio"])):
        with (options.out / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(dict(zip(COLUMNS, row, strict=True)) for row in rows)
    print(", ".join(f"{reason}: {len(names)}" for reason, names in skipped.items()))
    print("same take in both languages:", " ".join(skipped["same take"]))
    print(f"{len(rows)} pairs in {options.out / 'lines.csv'}; continue with\n")
    print(f"  unitweave corpus table --table {options.out}/lines.csv --out {options.out}/corpus")
    print(f"  unitweave run human --out runs/human --corpus.manifest {options.out}/corpus")
    return 0


def read_texts(path: Path) -> dict[str, dict[str, list[str]]]:
    """Table -> language -> subtitles, by their number.

    From TABLES_AT on, big-endian: the number of languages u16; then the tables, each with its number of entries u16
    and, for each language, a size u16 and so many bytes: two of padding, then the entries, each with a u16 that says
    how many bytes it takes, itself and zeros at the end included.
    """
    content, at = path.read_bytes(), TABLES_AT

    def number(position: int) -> int:
        return int(struct.unpack_from(">H", content, position)[0])

    languages, at = number(at), at + 2
    found: dict[str, dict[str, list[str]]] = {}
    for table in TABLES:
        entries, at = number(at), at + 2
        found[table] = {}
        for place in range(languages):
            size, at = number(at), at + 2
            position, texts = at + 2, []
            for _ in range(entries):
                length = number(position)
                texts.append(content[position + 2 : position + length].rstrip(b"\0").decode("cp850"))
                position += length
            at += size
            for language in (name for name, own in LANGUAGES.items() if own == place):
                found[table][language] = texts
    return found


def pairs(games: Path, out: Path, min_words: int) -> tuple[list[list[str]], dict[str, list[str]]]:
    """Rows of the table, and the names of the skipped lines by reason; recordings are written here."""
    texts = read_texts(games / "drascula.dat")
    folders = {language: games / "drascula" / language for language in LANGUAGES}
    rows: list[list[str]] = []
    skipped: dict[str, list[str]] = {"only one recording": [], "no text": [], "too few words": [], "same take": []}
    names = {path.stem for folder in folders.values() for path in folder.glob("*.ALS")}
    for name in sorted(names, key=lambda name: (name.rstrip("0123456789"), len(name), name)):
        letters, digits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
        files = {language: folder / f"{name}.ALS" for language, folder in folders.items()}
        if not all(file.exists() for file in files.values()):
            skipped["only one recording"].append(name)
            continue
        table, character, split = CHARACTERS.get(letters, ("", "", ""))
        lines = {language: subtitle(texts, table, language, digits) for language in LANGUAGES}
        if not all(lines.values()):
            skipped["no text"].append(name)
        elif min(len(line.split()) for line in lines.values()) < min_words:
            skipped["too few words"].append(name)
        else:
            takes = {language: read_recording(file) for language, file in files.items()}
            if correlation(takes["es"], takes["en"]) > SAME_TAKE:
                skipped["same take"].append(name)
                continue
            audio = {language: write_recording(out, language, name, take) for language, take in takes.items()}
            rows.append([name, split, "es", "en", audio["es"], audio["en"], lines["es"], lines["en"], character])
    return rows, skipped


def subtitle(texts: dict[str, dict[str, list[str]]], table: str, language: str, digits: str) -> str:
    """A line's text in lower case; empty where there is none."""
    lines = texts.get(table, {}).get(language, [])
    return " ".join(lines[int(digits)].lower().split()) if digits and int(digits) < len(lines) else ""


def read_recording(path: Path) -> np.ndarray:
    """Samples of an .ALS file, float32 [-1, 1] at RATE, trimmed."""
    return trimmed(np.frombuffer(path.read_bytes()[HEADER:-FOOTER], np.uint8).astype(np.float32) / 128 - 1, RATE)


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """A recording without the silence at its ends, but 0.1 seconds; all of one that is silent."""
    loud = np.flatnonzero(np.abs(samples) > 0.03)
    edge = rate // 10
    return samples[max(0, loud[0] - edge) : loud[-1] + edge] if len(loud) else samples


def correlation(one: np.ndarray, two: np.ndarray) -> float:
    """The largest normalized cross-correlation of two recordings over all shifts."""
    size = 1 << (len(one) + len(two)).bit_length()
    cross = np.fft.irfft(np.fft.rfft(one, size) * np.conj(np.fft.rfft(two, size)), size)
    return float(np.abs(cross).max() / max(np.linalg.norm(one) * np.linalg.norm(two), 1e-9))


def write_recording(out: Path, language: str, name: str, samples: np.ndarray, rate: int = RATE) -> str:
    """Write a recording as 16-bit wav; returns its path relative to `out`."""
    relative = Path("wav", language, f"{name}.wav")
    (out / relative).parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(out / relative), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return str(relative)


if __name__ == "__main__":
    sys.exit(main())
