"""English acted by thirty characters: the dialogues of the game Flight of the Amazon Queen, out of a Debian package.

    python examples/amazon_queen.py --out amazon-queen [--root FOLDER] [--min-words 3]

The package (flight-of-the-amazon-queen; freeware that may be passed on and changed with its notice, see its copyright
file) is downloaded with apt-get, or taken from --root, where it is unpacked or installed. OUT/lines.csv has English
recordings and their text, and no translation: it is the input of `unitweave corpus table`, by itself or beside the
table of drascula.py, for an encoder that is to understand people.

Speakers are the characters, by the names of the dialogues' files; the hero speaks in all of them. Three characters are
the test split, two the dev split; the others are for training. Only dialogues are taken: scenes, and what the hero says
of things, name no text beside the recording. Lines of fewer words are skipped.
"""

import argparse
import csv
import io
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from debian import fetch
from drascula import trimmed, write_recording

PACKAGE = "flight-of-the-amazon-queen"
RATE = 11_025  # Hz
MP3 = 1  # the compression that the archive's header names
SPLITS = {"witch": "test", "henry": "test", "naomi": "test", "bud": "dev", "lola": "dev"}  # others: train
COLUMNS = ("id", "split", "src_lang", "tgt_lang", "src_audio", "src_text", "speaker")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the package, recordings and lines.csv")
    parser.add_argument("--root", type=Path, help="folder in which the package is unpacked; / if it is installed")
    parser.add_argument("--min-words", type=int, default=3, help="skip lines with fewer words")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        root = options.root or fetch(options.out / "packages", [PACKAGE])
        files = read_archive(root / "usr/share/scummvm" / PACKAGE / "queen.1c")
        rows, skipped, seconds = lines(files, options.out, options.min_words)
    except (OSError, ValueError, struct.error, subprocess.CalledProcessError) as error:
        print(f"amazon_queen.py: {error}", file=sys.stderr)
        return 2
    with (options.out / "lines.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    print(", ".join(f"{reason}: {count}" for reason, count in skipped.items()))
    alike = np.corrcoef([len(row[5]) for row in rows], seconds)[0, 1] if len(rows) > 1 else 1.0
    print(f"correlation of the length of text and recording: {alike:.2f}")
    speakers = len({row[6] for row in rows})
    print(
        f"{len(rows)} lines of {speakers} characters, {sum(seconds) / 60:.0f} minutes, in {options.out / 'lines.csv'}"
    )
    print(f"\n  unitweave corpus table --table {options.out}/lines.csv --out {options.out}/corpus")
    return 0


def read_archive(path: Path) -> dict[str, bytes]:
    """Name -> content of each file in queen.1c.

    Big-endian: "QTBL", a version of 6 bytes, 2 unused, the compression of the recordings u8, the number of files u16;
    for each its name (12 bytes, closed by zeros), the number of the archive u8, where it begins and its size, u32.
    """
    content = path.read_bytes()
    if content[:4] != b"QTBL" or content[12] != MP3:
        raise ValueError(f"{path}: not the archive of Debian's package, with recordings as MP3")
    files = {}
    for i in range(struct.unpack_from(">H", content, 13)[0]):
        name, _, begin, size = struct.unpack_from(">12sBII", content, 15 + 21 * i)
        files[name.rstrip(b"\0").decode("ascii")] = content[begin : begin + size]
    return files


def lines(files: dict[str, bytes], out: Path, min_words: int) -> tuple[list[list[str]], Counter[str], list[float]]:
    """Rows of the table, skipped lines by reason, seconds of each row; recordings are written here."""
    rows, seconds, skipped = [], [], Counter({"no recording": 0, "too few words": 0})
    found = {}
    for name in sorted(files):
        if name.endswith(".DOG"):
            for prefix, text, speaker in dialogue(files[name][20:], re.sub(r"\d|\.DOG", "", name).lower()):
                found.setdefault(prefix, (text, speaker))  # of two files of the same number the first one
    for prefix, (text, speaker) in found.items():
        for number, part in enumerate(parts(text), 1):
            recording = files.get(f"{prefix}{number:X}.SB")
            spoken = " ".join(part.replace("^_", "").lower().split())  # ^_: a trademark sign in the game's font
            if recording is None:
                skipped["no recording"] += spoken not in ("", "0")
            elif len(spoken.split()) < min_words:
                skipped["too few words"] += 1
            else:
                samples, rate = soundfile.read(io.BytesIO(recording), dtype="float32")
                samples = trimmed(samples, rate)
                id = f"{prefix}{number:X}"
                audio = write_recording(out, "en", id, samples, rate)
                rows.append([id, SPLITS.get(speaker, "train"), "en", "es", audio, spoken, speaker])
                seconds.append(len(samples) / rate)
    return rows, skipped, seconds


def dialogue(content: bytes, person: str) -> Iterator[tuple[str, str, str]]:
    """The lines of a .DOG file behind its 20 bytes of header: first part of the recording's name, text, speaker.

    Big-endian i16: levels of the tree (negative where it cannot be left), a key, the dialogue's number, the numbers of
    lines of the hero and of the person; at byte 22 where the person's lines begin and at 26 where the greetings do
    (u16). The hero's lines follow the tree, 96 bytes a level from byte 32 on. A line has 2 bytes, its number u16, its
    length u8 and its text, to the next multiple of 4. The hero's first greeting is his first "line" if its number is 0;
    where both have met before, the person and then the hero say the two texts of the greetings. Their numbers in
    the recordings' names are SSSS and XXXX.
    """
    levels, _, number, *counts = struct.unpack_from(">5h", content)
    begins = (32 + 96 * abs(levels), struct.unpack_from(">H", content, 22)[0])
    for who, letter, at, count in zip(("joe", person), "JP", begins, counts, strict=True):
        for _ in range(count):
            line = struct.unpack_from(">H", content, at + 2)[0]
            text, at = string(content, at + 4, 4)
            if line:
                yield f"{number:02d}{line:04X}{letter}", text, who
    if struct.unpack_from(">H", content, begins[0] + 2)[0] == 0:
        yield f"{number:02d}SSSSJ", string(content, begins[0] + 4, 2)[0], "joe"
    text, at = string(content, struct.unpack_from(">H", content, 26)[0], 2)
    yield f"{number:02d}XXXXP", text, person
    yield f"{number:02d}XXXXJ", string(content, at, 2)[0], "joe"


def string(content: bytes, at: int, align: int) -> tuple[str, int]:
    """A text behind its length u8, and where the next one begins: at a multiple of `align`, if this one has a text."""
    begin, length = at + 1, content[at]
    end = begin + length
    return content[begin:end].split(b"\0")[0].decode("cp437"), -(-end // align) * align if length else end


def parts(text: str) -> list[str]:
    """The parts of a line that are recordings of their own: a gesture ends each, * and two characters.

    The gesture XY, which walks, has eleven more, such as 00(237,112).
    """
    found = re.split(r"\*(?:XY.{11}|.{2})", text)
    return found if found[-1] else found[:-1]


if __name__ == "__main__":
    sys.exit(main())
