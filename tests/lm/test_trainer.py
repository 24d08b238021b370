"""Training resumes to the digit, and spreads over processes without changing what it computes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    PreTrainedModel,
    TrainingArguments,
)
from transformers.integrations import is_deepspeed_available

from helpers.processes import Program, run, run_ranks
from helpers.training import STEPS, script, settings_of, source_of, train
from unitweave.core.errors import InputError
from unitweave.core.signals import Stopped, signals_handled, stop_after_stage
from unitweave.lm.train import trainer as engine
from unitweave.lm.train.attention import flash_fits
from unitweave.lm.train.fit import DevEvaluation, fit
from unitweave.lm.train.isolation import check_isolation
from unitweave.lm.train.trainer import LmTrainer
from unitweave.training import trainer as training
from unitweave.training.checkpoints import newest_step

pytestmark = pytest.mark.slow


def lively(model: PreTrainedModel) -> PreTrainedModel:
    """The model with larger random weights, so that what it hears changes what it says."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training with nothing special about it."""
    folder = tmp_path_factory.mktemp("plain")
    train(folder)
    return folder


def log_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "mfu")} for line in lines]


def same_training(folder: Path, other: Path) -> bool:
    """Whether two trainings have the same losses to the last digit and the same weights to the last bit."""
    one, two = ((f / "model/model.safetensors").read_bytes() for f in (folder, other))
    return log_of(folder) == log_of(other) and one == two


@pytest.mark.processes
def test_a_training_killed_at_any_moment_and_resumed_equals_one_left_alone(tmp_path: Path) -> None:
    killed = Program(script(tmp_path / "killed", "dropout=0.3"), tmp_path)
    while not (tmp_path / "killed/checkpoints/checkpoint-3/trainer_state.json").exists():
        assert killed.code is None, "it ended before a checkpoint was there"
        time.sleep(0.005)
    killed.send(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    train(tmp_path / "whole", dropout=0.3)
    train(tmp_path / "killed", dropout=0.3)
    assert same_training(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.processes
def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(tmp_path: Path) -> None:
    killed = (
        "import os, signal; from unitweave.lm.train import trainer as engine; own = engine.LmTrainer._save_rng_state\n"
        "def late(self, where):\n"
        "    if self.state.global_step > 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    own(self, where)\n"
        "engine.LmTrainer._save_rng_state = late\n"
    )
    folder = tmp_path / "killed"
    assert run(killed + script(folder, "optimizer='muon'"), tmp_path).code == -signal.SIGKILL
    assert (folder / "checkpoints/partial").exists()
    train(tmp_path / "whole", optimizer="muon")
    train(folder, optimizer="muon")
    assert same_training(folder, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_training_with_a_checkpoint_of_the_step_that_it_came_in(
    tmp_path: Path, number: signal.Signals
) -> None:
    step = LmTrainer.training_step

    def signaled(self: LmTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4 and not self.args.output_dir.endswith("whole"):
            os.kill(os.getpid(), number)
        return step(self, *args, **kwargs)

    expected = KeyboardInterrupt if number == signal.SIGINT else Stopped
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(expected), signals_handled():
        patch.setattr(LmTrainer, "training_step", signaled)
        train(tmp_path / "stopped", accumulation=1)
    assert signal.getsignal(number) == before
    assert newest_step(tmp_path / "stopped/checkpoints") == 5
    train(tmp_path / "stopped", accumulation=1)
    train(tmp_path / "whole", accumulation=1)
    assert same_training(tmp_path / "stopped", tmp_path / "whole")


def test_a_signal_during_the_last_evaluation_ends_the_command_after_its_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = engine.LmTrainer.log

    def signaled(self: LmTrainer, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_runtime" in logs:  # after the last step, and what was evaluated at it
            os.kill(os.getpid(), signal.SIGUSR1)
        ended(self, logs, start_time)

    with signals_handled():
        monkeypatch.setattr(LmTrainer, "log", signaled)
        train(tmp_path, accumulation=1)
        with pytest.raises(Stopped):
            stop_after_stage()
    assert len(log_of(tmp_path)) == STEPS


@pytest.mark.processes
@pytest.mark.cpu
def test_a_signal_to_one_of_two_processes_ends_both_at_the_same_step(plain: Path, tmp_path: Path) -> None:
    signaled = (
        "import os, signal; from unitweave.core.signals import signals_handled; own_signals = signals_handled()\n"
        "own_signals.__enter__()\n"
        "from unitweave.lm.train import trainer as engine; own = engine.LmTrainer.training_step\n"
        "def late(self, *args, **kwargs):\n"
        "    if self.state.global_step == 4 and os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return own(self, *args, **kwargs)\n"
        "engine.LmTrainer.training_step = late\n"
    )
    with pytest.raises(AssertionError):
        on_two_processes(tmp_path / "stopped", "accumulation=1", signaled)
    assert newest_step(tmp_path / "stopped/checkpoints") == 5
    # One process goes on with what two have written, and sees the same steps.
    train(tmp_path / "stopped")
    one, two = weights_of(plain), weights_of(tmp_path / "stopped")
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=1e-3)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model/model.safetensors")


def on_two_processes(folder: Path, arguments: str, before: str = "") -> None:
    ranks = run_ranks(before + script(folder, arguments), folder)
    assert [rank.code for rank in ranks] == [0, 0], "".join(rank.printed for rank in ranks)[-3000:]


needs_deepspeed = pytest.mark.skipif(not is_deepspeed_available(), reason="needs deepspeed")
ZERO = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


@pytest.mark.parametrize("how", ["", ", fsdp=True", pytest.param(", deepspeed='ds.json'", marks=needs_deepspeed)])
@pytest.mark.cpu
def test_two_processes_train_as_one_does(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Over gloo, with DDP, FSDP or DeepSpeed's ZeRO 3: the losses and weights of one process with twice the turns."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds.json").write_text(json.dumps(ZERO))
    on_two_processes(tmp_path / "two", f"accumulation=1{how}")
    for one, two in zip(log_of(plain), log_of(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        assert two["ratio"] == one["ratio"]
    one, two = weights_of(plain), weights_of(tmp_path / "two")
    assert one.keys() == two.keys() and "model.layers.1.mlp.up_proj.weight" in two
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("how", ["fsdp=True", pytest.param("deepspeed='ds.json'", marks=needs_deepspeed)])
@pytest.mark.cpu
def test_a_sharded_training_killed_and_resumed_equals_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ds.json").write_text(json.dumps(ZERO))
    on_two_processes(tmp_path / "whole", how)
    killed = (
        "import os, signal; from unitweave.lm.train import trainer as engine; own = engine.LmTrainer.training_step\n"
        "def late(self, *args, **kwargs):\n"
        "    if self.state.global_step == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return own(self, *args, **kwargs)\n"
        "engine.LmTrainer.training_step = late\n"
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
        {"max_tokens_per_forward": 60},
        {"torch_compile_backend": "inductor"},
        {"dataloader_num_workers": 1},
    ],
)
def test_what_saves_memory_or_time_changes_no_loss(plain: Path, tmp_path: Path, changes: dict) -> None:
    counters.clear()
    train(tmp_path, **changes)
    # Every batch has another length; what is compiled is compiled once, not for each of them.
    assert counters["stats"]["unique_graphs"] in (range(1, 9) if "torch_compile_backend" in changes else [0])
    for usual, saving in zip(log_of(plain), log_of(tmp_path), strict=True):
        assert saving["loss"] == pytest.approx(usual["loss"], rel=1e-4)
        assert saving["grad_norm"] == pytest.approx(usual["grad_norm"], rel=1e-3)


def test_a_step_in_several_passes_is_one_step_to_accelerate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its DeepSpeed backward takes an optimizer step wherever gradients are said to be due."""
    due: list[bool] = []
    own = Accelerator.backward

    def backward(self: Accelerator, loss: torch.Tensor, **kwargs: object) -> None:
        due.append(self.sync_gradients)
        own(self, loss, **kwargs)

    monkeypatch.setattr(Accelerator, "backward", backward)
    train(tmp_path, max_tokens_per_forward=60)
    assert len(due) > 2 * STEPS and sum(due) == STEPS and due[-1]


def test_one_process_uses_one_of_several_gpus_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More would make the Trainer cut the packed row in pieces, one for each GPU."""

    class OnTwoGpus(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 2

    monkeypatch.setattr(training, "TrainingArguments", OnTwoGpus)
    seen: list[int] = []
    said: list[str] = []
    monkeypatch.setattr(engine.LmTrainer, "train", lambda self, **_: seen.append(self.args.n_gpu))
    monkeypatch.setattr(training, "echo", said.append)
    train(tmp_path)
    assert seen == [1] and len(said) == 1 and "torchrun --nproc-per-node 2" in said[0]


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=210, n_embd=32, n_layer=2, n_head=2, n_positions=512))


def test_a_model_with_dropout_does_not_train_on_the_flash_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel knows no dropout; without it a row would be one sequence, each hearing all before it."""
    monkeypatch.setattr(engine, "flash_works", lambda device: True)
    monkeypatch.setattr(training, "use_bf16", lambda precision: True)
    fit(gpt2(), source_of(2), settings_of(steps=2), tmp_path, "test")
    assert len(log_of(tmp_path)) == 2
    assert flash_fits(LlamaConfig()) and flash_fits(GPT2Config(attn_pdrop=0, embd_pdrop=0, resid_pdrop=0))
    assert not flash_fits(LlamaConfig(attention_dropout=0.1)) and not flash_fits(Gemma2Config())


@pytest.mark.parametrize("cross_entropy", ["chunked", "plain"])
def test_an_architecture_whose_sequences_hear_each_other_is_refused(tmp_path: Path, cross_entropy: str) -> None:
    for config in (
        FalconConfig(vocab_size=210, hidden_size=32, num_hidden_layers=2, num_attention_heads=2),
        BloomConfig(vocab_size=210, hidden_size=32, n_layer=2, n_head=2),
        MptConfig(vocab_size=210, d_model=32, n_layers=2, n_heads=2),
        MambaConfig(vocab_size=210, hidden_size=32, num_hidden_layers=2),
        Lfm2Config(
            vocab_size=210, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, layer_types=["conv", "full_attention"],
        ),
        GptOssConfig(
            vocab_size=210, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=16, num_local_experts=2, num_experts_per_tok=1,
        ),
    ):  # fmt: skip
        model = lively(AutoModelForCausalLM.from_config(config))
        own = model.config._attn_implementation
        with pytest.raises(InputError, match=f"{type(model).__name__} cannot be trained"):
            fit(model, source_of(2), settings_of(cross_entropy=cross_entropy), tmp_path, "test")
        assert model.config._attn_implementation == own


def test_looking_at_an_architecture_draws_nothing_and_leaves_it_as_it_was() -> None:
    model = lively(gpt2())
    ids = torch.arange(9)[None]
    before, state = model.eval()(ids).logits, torch.get_rng_state()
    model.train()
    check_isolation(model)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert torch.equal(model.eval()(ids).logits, before)


def test_a_model_that_caps_its_attention_trains_and_has_its_own_attention_again(tmp_path: Path) -> None:
    """Gemma 2, which transformers runs with its eager attention alone."""
    config = Gemma2Config(
        vocab_size=210, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, attn_logit_softcapping=1.0, sliding_window=4,
    )  # fmt: skip
    model = lively(Gemma2ForCausalLM(config))
    ids = torch.arange(9)[None]

    def look(causal: Gemma2ForCausalLM, step: int) -> dict[str, float]:
        assert causal(ids).logits.shape == (1, 9, 210) and causal.config._attn_implementation == "eager"
        return {}

    settings = settings_of(steps=2, cross_entropy="plain")
    fit(model, source_of(2), settings, tmp_path, "test", evaluation=DevEvaluation(look, 1))
    assert model.config._attn_implementation == "eager" and len(log_of(tmp_path)) == 2


@pytest.mark.processes
def test_a_full_disk_while_saving_leaves_the_checkpoint_before_and_training_goes_on_from_it(
    plain: Path, tmp_path: Path
) -> None:
    """A limit on the size of a file stands in for the disk: the second checkpoint does not fit."""
    folder = tmp_path / "full"
    limited = (
        "import resource; from unitweave.lm.train import trainer as engine\n"
        "own = engine.LmTrainer._save_optimizer_and_scheduler\n"
        "def late(self, where):\n"
        "    if self.state.global_step > 3: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "    own(self, where)\n"
        "engine.LmTrainer._save_optimizer_and_scheduler = late\n"
    )
    failed = run(limited + script(folder), tmp_path)
    assert "InputError" in failed.printed and "no space for the checkpoint of step 6" in failed.printed, failed.printed
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint-3"]
    (folder / "dev.jsonl").write_text('{"step": 3, "bleu": 1}\n{"step": 5, "bleu": 2}\n{"step": 6, "bl')
    train(folder)
    assert same_training(folder, plain)
    assert (folder / "dev.jsonl").read_text() == '{"step": 3, "bleu": 1}\n', "later scores will be written again"


def test_the_log_says_ratio_losses_per_segment_and_speed(plain: Path) -> None:
    lines = [json.loads(line) for line in (plain / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["ratio"] for line in lines] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    sequences = [source_of(STEPS).sequences(step) for step in range(STEPS)]
    realized = [sum(one.replaced for one in step) / sum(one.words for one in step) for step in sequences]
    assert [line["realized_ratio"] for line in lines] == pytest.approx(realized)
    assert realized == pytest.approx([line["ratio"] for line in lines], abs=0.1)
    assert {"loss_source", "loss_transcript", "loss_translation", "loss_target", "tokens_per_second", "mfu"} <= set(
        lines[0]
    )
    assert lines[-1]["loss"] < lines[0]["loss"]
