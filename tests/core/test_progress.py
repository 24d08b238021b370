"""What the progress line says."""

import io

import pytest
from rich.console import Console

from unitweave.core import progress


def test_the_time_left_is_reckoned_from_what_this_call_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    with progress.meter("training", 10_000, done=9_000) as shown:
        shown.advance(10)
    assert progress.console.file.getvalue() == "training: 9010/10000, 20 s, 1980 s left\n"
