"""examples/drascula.py on a miniature of the game: texts, trimmed recordings, and what is left out."""

import csv
import importlib.util
import struct
import sys
import wave
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples/drascula.py"


@pytest.fixture(scope="module")
def drascula() -> ModuleType:
    sys.path.insert(0, str(EXAMPLE.parent))  # as for a script
    spec = importlib.util.spec_from_file_location("drascula", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(EXAMPLE.parent))
    return module


def texts(lines: dict[str, dict[str, list[str]]], tables: tuple[str, ...], place: int) -> bytes:
    """A drascula.dat: three languages, the tables in their order, an empty entry 0 in each."""
    out = bytes(place) + struct.pack(">H", 3)
    for table in tables:
        own = lines.get(table, {"en": [], "es": []})
        out += struct.pack(">H", len(own["en"]) + 1)
        for language in ("en", "es", "de"):
            block = b"\0\0"
            for text in ["", *own.get(language, own["en"])]:
                content = text.encode("cp850") + b"\0\0"
                content += b"\0" * (-(len(content) + 2) % 4)
                block += struct.pack(">H", len(content) + 2) + content
            out += struct.pack(">H", len(block)) + block
    return out


def recording(seed: int) -> bytes:
    """Half a second of noise between quarters of silence, as an .ALS file."""
    noise = np.random.default_rng(seed).integers(20, 236, 5512).astype(np.uint8).tobytes()
    return bytes(32) + b"\x80" * 2756 + noise + b"\x80" * 2756 + bytes(64)


def test_lines_become_pairs_by_character_without_takes_of_the_other_language(
    drascula: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    games = tmp_path / "root/usr/share/scummvm"
    lines = {
        "text": {
            "en": ["THE DOOR IS SHUT", "NO", "A FINE DAY INDEED"],
            "es": ["LA PUERTA ESTÁ CERRADA", "NO", "QUÉ BUEN DÍA"],
        },
        "textbj": {"en": ["TOMORROW WE LEAVE"], "es": ["MAÑANA  NOS VAMOS"]},
    }
    takes = {"1": (1, 2), "2": (3, 4), "3": (5, 5), "BJ1": (6, 7), "S1": (8, 9), "4": (10, None)}
    for language, place in (("es", 0), ("en", 1)):
        (games / "drascula" / language).mkdir(parents=True)
        for name, seeds in takes.items():
            if seeds[place] is not None:
                (games / "drascula" / language / f"{name}.ALS").write_bytes(recording(seeds[place]))
    (games / "drascula.dat").write_bytes(texts(lines, drascula.TABLES, drascula.TABLES_AT))
    monkeypatch.setattr("sys.argv", ["drascula.py", "--out", str(tmp_path / "out"), "--root", str(tmp_path / "root")])
    assert drascula.main() == 0
    shown = capsys.readouterr().out
    assert "only one recording: 1, no text: 1, too few words: 1, same take: 1" in shown
    assert "same take in both languages: 3\n2 pairs in " in shown
    with (tmp_path / "out/lines.csv").open(encoding="utf-8") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["1", "BJ1"]
    assert (rows["1"]["src_text"], rows["1"]["tgt_text"]) == ("la puerta está cerrada", "the door is shut")
    assert (rows["BJ1"]["src_text"], rows["BJ1"]["split"], rows["BJ1"]["speaker"]) == (
        "mañana nos vamos", "test", "billie-jean",
    )  # fmt: skip
    with wave.open(str(tmp_path / "out" / rows["1"]["src_audio"])) as file:
        assert file.getframerate() == 11_025
        assert 5512 + 2 * 1000 < file.getnframes() < 5512 + 2 * 1200, "a tenth of a second of silence stays"
    (games / "drascula.dat").write_bytes(b"short")
    assert drascula.main() == 2
