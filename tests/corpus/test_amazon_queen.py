"""examples/amazon_queen.py on a miniature of the game: dialogues, their recordings by name, and what is left out."""

import csv
import importlib.util
import io
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

EXAMPLE = Path(__file__).parents[2] / "examples/amazon_queen.py"


@pytest.fixture(scope="module")
def amazon_queen() -> ModuleType:
    sys.path.insert(0, str(EXAMPLE.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("amazon_queen", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(EXAMPLE.parent))
    return module


def text(content: str, align: int, at: int) -> bytes:
    """A text at place `at` of a file, as it stands there."""
    encoded = content.encode("cp437")
    out = bytes([len(encoded)]) + encoded
    return out + bytes(-(at + len(out)) % align if encoded else 0)


def dialogue(
    number: int, hero: dict[int, str], person: dict[int, str], greeting: str | None, met: tuple[str, str]
) -> bytes:
    """A .DOG file with one level of the tree."""
    out = bytes(32 + 96)
    begins = []
    for lines in (hero if greeting is None else {0: greeting, **hero}, person):
        begins.append(len(out))
        for line, content in lines.items():
            out += bytes(2) + struct.pack(">H", line)
            out += text(content, 4, len(out))
    begins.append(len(out))
    for content in met:
        out += text(content, 2, len(out))
    counts = (len(hero) + (greeting is not None), len(person))
    head = struct.pack(">5h", -1, 7, number, *counts) + bytes(12) + struct.pack(">3H", begins[1], 0, begins[2])
    return bytes(20) + head + out[len(head) :]


def archive(files: dict[str, bytes], compression: int = 1) -> bytes:
    """A queen.1c."""
    out, begin = b"QTBLCEM10\0\0\0" + bytes([compression]) + struct.pack(">H", len(files)), 15 + 21 * len(files)
    for name, content in sorted(files.items()):
        out += struct.pack(">12sBII", name.encode(), 1, begin, len(content))
        begin += len(content)
    return out + b"".join(content for _, content in sorted(files.items()))


def mp3(seconds: float) -> bytes:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, int(seconds * 11_025))
    file = io.BytesIO()
    soundfile.write(file, noise, 11_025, format="MP3")
    return file.getvalue()


def test_each_part_of_a_line_is_paired_with_the_recording_of_its_name(
    amazon_queen: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bob = dialogue(
        6,
        {0x2A: "What a fine day*02it is today Bob*XY00(237,112)I walk away now*00", 0x1B4: "No way"},
        {0x9B: "*GDYou are ^_  right Joe", 0: "not a line"},
        "Excuse me dear Bob",
        ("Hello once again Joe.*FR", "Hi"),
    )
    witch = dialogue(12, {}, {1: "I am a witch", 2: "Nobody recorded this line"}, None, ("0", "0"))
    sounds = {"06002AJ1": 1, "06002AJ2": 2, "06002AJ3": 3, "0601B4J1": 1, "06009BP2": 1.5, "06SSSSJ1": 1}
    sounds |= {"06XXXXP1": 1, "06XXXXJ1": 1, "120001P1": 1, "C41A_031": 1}
    files = {f"{name}.SB": mp3(seconds) for name, seconds in sounds.items()} | {"BOB1.DOG": bob, "WITCH2.DOG": witch}
    game = tmp_path / "root/usr/share/scummvm/flight-of-the-amazon-queen"
    game.mkdir(parents=True)
    (game / "queen.1c").write_bytes(archive(files))
    options = ["--out", str(tmp_path / "out"), "--root", str(tmp_path / "root")]
    monkeypatch.setattr("sys.argv", ["amazon_queen.py", *options])
    assert amazon_queen.main() == 0
    shown = capsys.readouterr().out
    assert "no recording: 1, too few words: 2" in shown
    assert "7 lines of 3 characters" in shown
    with (tmp_path / "out/lines.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert {id: (row["src_text"], row["speaker"], row["split"]) for id, row in rows.items()} == {
        "06002AJ1": ("what a fine day", "joe", "train"),
        "06002AJ2": ("it is today bob", "joe", "train"),
        "06002AJ3": ("i walk away now", "joe", "train"),
        "06009BP2": ("you are right joe", "bob", "train"),
        "06SSSSJ1": ("excuse me dear bob", "joe", "train"),
        "06XXXXP1": ("hello once again joe.", "bob", "train"),
        "120001P1": ("i am a witch", "witch", "test"),
    }
    info = soundfile.info(tmp_path / "out" / rows["06002AJ3"]["src_audio"])
    assert (info.samplerate, round(info.duration)) == (11_025, 3)
    (game / "queen.1c").write_bytes(archive(files, compression=0))
    assert amazon_queen.main() == 2
    assert "not the archive of Debian's package" in capsys.readouterr().err
