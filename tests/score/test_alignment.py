"""The worst-aligned recordings of a run, before any language model is trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.serving import speech
from unitweave.cli import main
from unitweave.core.audio import write_audio
from unitweave.core.manifest import Pair, write_manifest
from unitweave.score.alignment import as_table, worst_aligned
from unitweave.units.dataset import UnitRow, write_shard


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four recordings of a second; the words of u2 fit badly, those of u1 have no spaces, u3 has none."""
    scores = {"u0": [0.9, 0.8], "u1": [1.0, 0.95], "u2": [0.01, 0.6], "u3": []}
    rows, pairs = [], []
    for i, (name, values) in enumerate(scores.items()):
        write_audio(tmp_path / f"{name}.wav", speech(1.0, i))
        words = (["我", "们"] if name == "u1" else ["<b>hola", "perro"])[: len(values)]
        starts, ends = np.array([5, 20][: len(values)], np.int32), np.array([18, 40][: len(values)], np.int32)
        rows.append(UnitRow(name, "src", np.zeros(50, np.uint16), words, starts, ends, np.array(values, np.float32)))
        pairs.append(Pair(name, "train", "es", "en", str(tmp_path / f"{name}.wav"), None, "hola perro", "hello dog"))
    (tmp_path / "corpus").mkdir()
    write_manifest(tmp_path / "corpus", pairs)
    write_shard(tmp_path / "units", 0, rows, {"codebook": "cb", "num_units": "4", "frame_rate": "50"})
    return tmp_path


@pytest.mark.slow
def test_the_worst_come_first_with_their_unsure_words_and_a_page_shows_them(
    run: Path, capsys: pytest.CaptureFixture
) -> None:
    page = run / "alignment.html"
    assert main(["units", "alignment", str(run), "--count", "2", "--page", str(page)]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| 0.") or line.startswith("| 1.")]
    assert [row.split(" | ")[1] for row in rows] == ["u2/src", "u0/src"]
    assert "[<b>hola] perro" in rows[0] and "3 recordings with words" in out
    text = page.read_text()
    assert (
        text.count("<figure>") == 4
        and "&lt;b&gt;hola" in text
        and "<b>hola" not in text
        and "0.97: 我们<" in text
        and "http" not in text
    )


def test_unsure_words_of_scripts_without_spaces_stay_within_their_text(run: Path) -> None:
    _, worst, _ = worst_aligned(run, 3)
    shown = as_table([replace(one, row=replace(one.row, scores=np.array([0.9, 0.1], np.float32))) for one in worst])
    assert "| 我[们]" in shown and "| <b>hola [perro]" in shown


def test_a_run_without_words_is_one_line(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["units", "alignment", str(run / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
