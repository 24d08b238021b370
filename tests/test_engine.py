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
from safetensors.torch import load_file
from transformers.integrations import is_deepspeed_available

from conftest import MARKERS, random_example
from unitweave.lm.engine import OptimiserSettings, fit
from unitweave.lm.stream import Order, SpeechSource
from unitweave.lm.text import SmallLm, new_llama
from unitweave.weave.schedule import ScheduleSettings, text_ratio
from unitweave.weave.sequence import WeaveSettings

STEPS = 8


def train(folder: Path, optimiser: str = "adam", accumulation: int = 2, **changes: object) -> None:
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
        report_to=[],
        **changes,  # type: ignore[arg-type]
    )
    folder.mkdir(exist_ok=True)
    model = new_llama(SmallLm(hidden_size=32, layers=2, heads=2, feed_forward=64), 210)
    state = fit(model, source, settings, folder, "test", ratio)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder / "model", state_dict=state)


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "mfu")} for line in lines]


def script(folder: Path, arguments: str) -> str:
    here = str(Path(__file__).parent)
    return (
        f"import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import test_engine; "
        f"test_engine.train(Path({str(folder)!r}), {arguments})"
    )


def same_training(folder: Path, other: Path) -> bool:
    """Whether two trainings have the same losses to the last digit and the same weights to the last bit."""
    one, two = ((f / "model/model.safetensors").read_bytes() for f in (folder, other))
    return log_of(folder) == log_of(other) and one == two


def test_a_training_killed_at_any_moment_and_resumed_equals_one_left_alone(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", script(tmp_path / "killed", "")])
    deadline = time.monotonic() + 900
    while not (tmp_path / "killed/checkpoints/checkpoint-3/trainer_state.json").exists():
        assert killed.poll() is None and time.monotonic() < deadline, "it ended before a checkpoint was there"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    train(tmp_path / "whole")
    train(tmp_path / "killed")
    assert same_training(tmp_path / "killed", tmp_path / "whole")


def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path: Path) -> None:
    killed = (
        "import os, signal; from unitweave.lm import engine; own = engine.WeaveTrainer._save_rng_state\n"
        "def late(self, where):\n"
        "    if self.state.global_step > 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    own(self, where)\n"
        "engine.WeaveTrainer._save_rng_state = late\n"
    )
    folder = tmp_path / "killed"
    program = killed + script(folder, "optimiser='muon'")
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert (folder / "checkpoints/partial").exists()
    train(tmp_path / "whole", optimiser="muon")
    train(folder, optimiser="muon")
    assert same_training(folder, tmp_path / "whole")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def on_two_processes(folder: Path, arguments: str, before: str = "") -> None:
    folder.mkdir(exist_ok=True)
    program = folder / "two.py"
    program.write_text(before + script(folder, arguments))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


needs_deepspeed = pytest.mark.skipif(not is_deepspeed_available(), reason="needs deepspeed")
ZERO = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


@pytest.mark.parametrize("how", ["", ", fsdp=True", pytest.param(", deepspeed='ds.json'", marks=needs_deepspeed)])
def test_two_processes_train_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Over gloo, with DDP, FSDP or DeepSpeed's ZeRO 3: the losses and weights of one process with twice the turns."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds.json").write_text(json.dumps(ZERO))
    train(tmp_path / "one", accumulation=2)
    on_two_processes(tmp_path / "two", f"accumulation=1{how}")
    for one, two in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert two["ratio"] == one["ratio"]
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert one.keys() == two.keys() and "model.layers.1.mlp.up_proj.weight" in two
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("how", ["fsdp=True", pytest.param("deepspeed='ds.json'", marks=needs_deepspeed)])
def test_a_sharded_training_killed_and_resumed_equals_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds.json").write_text(json.dumps(ZERO))
    on_two_processes(tmp_path / "whole", how)
    killed = (
        "import os, signal; from unitweave.lm import engine; own = engine.WeaveTrainer.training_step\n"
        "def late(self, *args, **kwargs):\n"
        "    if self.state.global_step == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return own(self, *args, **kwargs)\n"
        "engine.WeaveTrainer.training_step = late\n"
    )
    with pytest.raises(AssertionError):
        on_two_processes(tmp_path / "killed", how, killed)
    assert [path.name for path in (tmp_path / "killed/checkpoints").iterdir()] == ["checkpoint-3"]
    on_two_processes(tmp_path / "killed", how)
    assert same_training(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_checkpointing": True},
        {"cross_entropy": "plain"},
        {"forward_tokens": 60},
        {"compile": "aot_eager"},
        {"workers": 1},
    ],
)
def test_what_saves_memory_or_time_changes_no_loss(tmp_path: Path, changes: dict) -> None:
    train(tmp_path / "plain")
    train(tmp_path / "saving", **changes)
    for plain, saving in zip(log_of(tmp_path / "plain"), log_of(tmp_path / "saving"), strict=True):
        assert saving["loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert saving["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)


def test_a_full_disk_while_saving_leaves_the_checkpoint_before_and_training_goes_on_from_it(tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the disk: the second checkpoint does not fit."""
    train(tmp_path / "whole")
    folder = tmp_path / "full"
    limited = (
        "import resource; from unitweave.lm import engine; own = engine.WeaveTrainer._save_optimizer_and_scheduler\n"
        "def late(self, where):\n"
        "    if self.state.global_step > 3: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    own(self, where)\n"
        "engine.WeaveTrainer._save_optimizer_and_scheduler = late\n"
    )
    failed = subprocess.run([sys.executable, "-c", limited + script(folder, "")], capture_output=True, text=True)
    assert "InputError" in failed.stderr and "no space for the checkpoint of step 6" in failed.stderr, failed.stderr
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-3"]
    train(folder)
    assert log_of(folder) == log_of(tmp_path / "whole")
    assert (folder / "model/model.safetensors").read_bytes() == (
        tmp_path / "whole/model/model.safetensors"
    ).read_bytes()


def test_the_log_says_ratio_losses_per_segment_and_speed(tmp_path: Path) -> None:
    train(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["ratio"] for line in lines] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    assert {"loss_source", "loss_transcript", "loss_translation", "loss_target", "tokens_per_second", "mfu"} <= set(
        lines[0]
    )
    assert lines[-1]["loss"] < lines[0]["loss"]
