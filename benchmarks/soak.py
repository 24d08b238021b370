"""A run that is killed again and again ends in the bytes of one that was left alone.

    python benchmarks/soak.py [--kills 100] [--seconds 600] [--folder FOLDER] [--signals KILL | TERM INT USR1 ...]

All stages at tiny settings, in turn with one process and with two. Each attempt is killed (SIGKILL, all its
processes) at a random moment, until a run is done; then its files are compared with those of a run that nobody
disturbed, but for times, speeds and what is made from them. Another signal goes to all processes at once, as a
launcher or a terminal sends it, and each of them has to end with its code, the main one with a line and no traceback.
`--seconds` ends the sitting; with `--folder` the next one adds its kills to those before. Attempts are forks of one
process that has loaded everything: no kill is wasted on imports. The recognizer is a Whisper of random weights.
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml

import unitweave.pipeline  # noqa: F401  # before the forks
from unitweave.cli import main as unitweave_main
from unitweave.core.files import file_digest, write_json

_TRAINING = {"steps": 6, "save_steps": 2, "learning_rate": 1e-3}
_LM = _TRAINING | {"batch_size": 4, "logging_steps": 1, "report_to": []}
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
RECIPE: dict[str, Any] = {
    "corpus": {"embedded": {"languages": ["es"], "train": 24, "dev": 2, "test": 4, "workers": 1}},
    "encoder": {"shape": _SHAPE, "batch_seconds": 10, "eval_steps": 2, "training": _TRAINING},
    "codebook": {"num_units": 16, "layer": 2, "max_frames": 2000, "max_iterations": 2},
    "units": {"shard_size": 6, "workers": 1},
    "text_lm": {"extra_sentences": 0, "copy_task_steps": 2, "shape": _SHAPE | {"vocab_size": 300}, "training": _LM},
    "lm": {
        "training": _LM,
        "interleave": {"min_alignment_score": 0.0},
        "evaluation": {"eval_steps": 3, "utterances": 2, "examples": 1},
    },
    "systems": {"baseline": {"schedule": {"shape": "none"}}, "scheduled": {}},
    "vocoder": {
        "dim": 16,
        "intermediate_dim": 16,
        "layers": 1,
        "fine_layers": 1,
        "adversarial_start_step": 3,
        "discriminator_channels": 2,
        "training": {"steps": 6, "save_steps": 2, "batch_size": 2},
    },
    "translate": {"max_units_per_frame": 0.1, "max_text_tokens_per_second": 1.0, "shard_size": 2, "batch_size": 2},
    "score": {"mos": [], "bootstrap_samples": 10, "randomization_trials": 10, "examples": 2},
}
# What differs between two runs by its nature; settings are spelled as the recipe names them.
_TIMES = ("seconds", "versions", "provenance", "tokens_per_second", "mfu", "settings")


def write_recognizer(folder: Path) -> None:
    """Write a Whisper of random weights in two narrow layers: every machine has this recognizer."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    words = {"<|endoftext|>": 0, **{c: i + 1 for i, c in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}}
    special = ["<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES), "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer = WhisperTokenizer(words, [], additional_special_tokens=special)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_target_positions": 12}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 28}
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokenizer), **sizes, **heads, **tokens)
    config.suppress_tokens = config.begin_suppress_tokens = None
    model = WhisperForConditionalGeneration(config)
    model.generation_config.update(max_length=10, is_multilingual=False, no_timestamps_token_id=len(tokenizer) - 1)
    model.save_pretrained(folder)


def prepare(folder: Path) -> Path:
    """Write recognizer and recipe into a folder where they are not there yet; returns the recipe."""
    recipe = folder / "recipe.yaml"
    if not recipe.exists():
        write_recognizer(folder / "recognizer")
        score = RECIPE["score"] | {"recognizer": "whisper", "recognizer_model": str(folder.absolute() / "recognizer")}
        recipe.write_text(yaml.safe_dump(RECIPE | {"score": score}))
    return recipe


def start(run: Path, recipe: Path, processes: int, log: Path) -> list[int]:
    """Fork the processes of an attempt; returns their ids. None inherits a thread: torch runs on one here."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    children = []
    for rank in range(processes):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if processes > 1:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        code = 1
        try:
            os.setpgid(0, 0)
            code = unitweave_main(["run", str(recipe), "--out", str(run)])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return children


def kill_at(children: list[int], moment: float, number: int = signal.SIGKILL) -> bool:
    """Send the processes a signal after so many seconds; returns whether they had ended, all with code 0, before."""
    end = time.monotonic() + moment
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for pid in children:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                codes |= {pid: status} if done else {}
        failed = any(codes.values())
        if time.monotonic() > end or failed:
            left = [pid for pid in children if pid not in codes]
            sent = signal.SIGKILL if failed else number
            for pid in left:
                os.killpg(pid, sent) if os.getpgid(pid) == pid else os.kill(pid, sent)
            ended = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in left}
            if failed:
                sys.exit(f"an attempt ended with {codes}; see the log")
            # Done when the signal came, or ended by it; one that waited for another process at once.
            fine = {0, -sent, 128 + sent} if len(children) > 1 else {0, 128 + sent}
            if sent != signal.SIGKILL and not set(ended.values()) <= fine:
                sys.exit(f"after {signal.Signals(sent).name} the processes ended with {ended}; see the log")
            return not any(ended.values())
        time.sleep(0.005)
    return True


def content(run: Path) -> dict[str, str]:
    """File -> digest of what does not depend on time."""
    found = {}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        if path.name == "report.html" or path.suffix == ".lock" or "tensorboard" in path.parts:
            continue
        if path.suffix in (".json", ".jsonl"):
            lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = json.dumps([_timeless(json.loads(line)) for line in lines if line], sort_keys=True)
        else:
            found[name] = file_digest(path)
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in _TIMES}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def stage_of(run: Path) -> str:
    """The stage that an attempt was killed in."""
    for path in run.rglob("stage.json"):
        if json.loads(path.read_text())["status"] == "running":
            return path.parent.relative_to(run).as_posix()
    return "between stages"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signals", nargs="+", choices=("KILL", "TERM", "INT", "USR1"), default=["KILL"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    folder = options.folder or Path(tempfile.mkdtemp())
    recipe = prepare(folder)
    record = folder / "soak.json"
    state: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {"kills": 0, "runs": 0, "in": {}}
    rng = random.Random(options.seed + state["kills"])
    while state["kills"] < options.kills and time.monotonic() - begin < options.seconds:
        processes = 1 + state["runs"] % 2
        whole, killed = folder / f"whole-{processes}", folder / "killed"
        if not (folder / f"whole-{processes}.seconds").exists():
            shutil.rmtree(whole, ignore_errors=True)
            now = time.monotonic()
            kill_at(start(whole, recipe, processes, folder / "log"), float("inf"))
            (folder / f"whole-{processes}.seconds").write_text(str(time.monotonic() - now))
        usual = float((folder / f"whole-{processes}.seconds").read_text())
        # Early moments are as likely as late ones, so that a run sees some twenty kills before it is done.
        moment = rng.uniform(0, usual / 8) if rng.random() < 0.97 else float("inf")
        number = signal.Signals[f"SIG{rng.choice(options.signals)}"]
        before = (folder / "log").stat().st_size
        done = kill_at(start(killed, recipe, processes, folder / "log"), moment, number)
        if b"Traceback" in (folder / "log").read_bytes()[before:]:
            sys.exit(f"{killed}: a traceback, see {folder / 'log'}")
        if not done:
            state["kills"] += 1
            state["in"] = dict(Counter(state["in"]) + Counter([stage_of(killed)]))
        else:
            expected, found = content(whole), content(killed)
            unlike = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            if unlike:
                sys.exit(f"{killed}: not as undisturbed ({processes} processes): {', '.join(unlike)}")
            state["runs"] += 1
            shutil.rmtree(killed)
        write_json(record, state)
    per_stage = ", ".join(f"{name} {count}" for name, count in sorted(state["in"].items(), key=lambda i: -i[1]))
    print(
        f"{state['kills']} kills, {state['runs']} runs ended in the bytes of undisturbed ones; killed in: {per_stage}"
    )


if __name__ == "__main__":
    main()
