"""Training resumes to the digit, and spreads over processes without changing what it computes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from conftest import MARKERS, random_example
from unitweave.lm.engine import OptimiserSettings, fit
from unitweave.lm.stream import Order, SpeechSource
from unitweave.lm.text import SmallLm, new_llama
from unitweave.weave.schedule import ScheduleSettings, text_ratio
from unitweave.weave.sequence import WeaveSettings

STEPS = 8


def train(folder: Path, optimiser: str = "adam", accumulation: int = 2) -> None:
    """A short training of a tiny model with the paper's kind of schedule."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ratio = text_ratio(ScheduleSettings(stair_steps=1), STEPS)
    source = SpeechSource(
        [random_example(seed) for seed in range(10)], Order([range(10)], 1), 8, ratio, WeaveSettings(), MARKERS
    )
    settings = OptimiserSettings(
        steps=STEPS,
        batch=8,
        accumulation=accumulation,
        optimiser=optimiser,
        learning_rate=1e-2,
        precision="fp32",
        checkpoint_every=3,
        log_every=1,
    )
    model = new_llama(SmallLm(hidden_size=32, layers=2, heads=2, feed_forward=64), 210)
    fit(model, source, settings, folder, "test", ratio)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder / "model")


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


def script(folder: Path, arguments: str) -> str:
    here = str(Path(__file__).parent)
    return (
        f"import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import test_engine; "
        f"test_engine.train(Path({str(folder)!r}), {arguments})"
    )


def start(folder: Path, optimiser: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", script(folder, f"optimiser={optimiser!r}")])


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_a_training_killed_at_any_moment_and_resumed_equals_one_left_alone(tmp_path: Path, optimiser: str) -> None:
    assert start(tmp_path / "whole", optimiser).wait() == 0
    killed = start(tmp_path / "killed", optimiser)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed/checkpoints/checkpoint-3/trainer_state.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline, "it ended before a checkpoint was there"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert start(tmp_path / "killed", optimiser).wait() == 0
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    whole, resumed = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("whole", "killed"))
    assert whole == resumed


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """DistributedDataParallel over gloo: the same losses and weights as one process with twice the accumulation."""
    (tmp_path / "one").mkdir()
    train(tmp_path / "one", accumulation=2)
    folder = tmp_path / "two"
    folder.mkdir()
    program = tmp_path / "two.py"
    program.write_text(script(folder, "accumulation=1"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    for one, two in zip(log_of(tmp_path / "one"), log_of(folder), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert two["ratio"] == one["ratio"]


def test_the_log_says_ratio_losses_per_segment_and_speed(tmp_path: Path) -> None:
    train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["ratio"] for line in lines] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert {"loss_source", "loss_transcript", "loss_translation", "loss_target", "tokens_per_second"} <= set(lines[0])
    assert lines[-1]["loss"] < lines[0]["loss"]
