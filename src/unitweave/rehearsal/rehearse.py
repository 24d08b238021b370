"""A recipe, rehearsed: every stage once, for two steps, at its real shapes, and measured against its plan."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from unitweave.config.recipe import Recipe, load_with
from unitweave.config.training import Precision
from unitweave.config.units import check_layer
from unitweave.core.errors import InputError
from unitweave.core.files import discard, read_json, write_json, write_text
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import read_manifest
from unitweave.core.markdown import markdown_table
from unitweave.core.progress import echo
from unitweave.core.records import read_json_lines
from unitweave.core.stage import STAGE_FILE, read_stage
from unitweave.corpus.embedded.corpus import plan_digest
from unitweave.lm.estimate import model_config
from unitweave.lm.plan import Lengths, make_plan, measure
from unitweave.pipeline import Run
from unitweave.rehearsal.models import write_encoder, write_language_model
from unitweave.rehearsal.recipe import chosen_systems, model_name, rehearsal_recipe
from unitweave.training.devices import use_bf16
from unitweave.training.hardware import GIB
from unitweave.units import estimate
from unitweave.units.dataset import FRAME_RATE
from unitweave.units.front_end import FrontEnd
from unitweave.vocoder.config import check_vocoder_exists

REPORT_FILE = "rehearsal.json"
TOLERANCE = 0.15  # by which a measurement may differ from its plan
_COMPARED_FROM = 0.5  # GiB; smaller plans are lost in what Python and torch take themselves


@dataclass
class Step:
    """What was done in a process, and what it took.

    Attributes:
        stage: The stage, with its system.
        did: What of it.
        status: done, failed or skipped.
        seconds: Wall time.
        gib: Peak memory, above that of an idle process.
        planned: The same as the plan has it, where there is a plan.
        note: Why it failed or was skipped.
    """

    stage: str
    did: str
    status: str = "done"
    seconds: float = 0.0
    gib: float = 0.0
    planned: float | None = None
    note: str = ""

    @property
    def off(self) -> float | None:
        """By how much the measurement differs from the plan; None where they are not compared."""
        return self.gib / self.planned - 1 if self.planned and self.planned >= _COMPARED_FROM and self.gib else None

    @property
    def good(self) -> bool:
        """Whether it was not a failure, and as planned."""
        return self.status != "failed" and (self.off is None or abs(self.off) <= TOLERANCE)


class Rehearsal:
    """A rehearsal in a folder: its models, its run, and the report that grows with each step."""

    def __init__(self, folder: Path, recipe: Path, size: str, lora: bool, again: Sequence[str] = ()) -> None:
        """Args: `again` has the stages that are done again; for the others see `commands.rehearse`."""
        self.folder, self.small, self.lora = folder.absolute(), size == "small", lora
        self.given, content = load_with(recipe, {})
        self.models, self.layout = self.folder / "models", RunLayout(self.folder / "run")
        self.gpu = torch.cuda.is_available()
        made = rehearsal_recipe(content, self.given, self.models, self.gpu, lora, self.small)
        self.recipe_file = self.folder / "recipe.yaml"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.recipe_file, yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
        kept = read_json(self.folder / REPORT_FILE) if (self.folder / REPORT_FILE).exists() else {}
        same = kept.get("recipe") == made
        for stage in again:
            discard(self.layout.folder / stage)
        steps = [Step(**step) for step in kept.get("steps", [])] if same else []
        self.steps = [step for step in steps if step.stage.split("/")[0] not in again and self._is_there(step)]
        self.head: dict[str, Any] = {"recipe": made, "size": size, "lora": lora, "machine": self._machine()}

    def all(self) -> None:
        """Every stage; one that an earlier call did is not done again."""
        recipe, _ = load_with(self.recipe_file, {})
        self._check(recipe)
        self._write_models()
        self._do("corpus", "synthesized")
        self._train("encoder", lambda: self._plan_encoder(recipe))
        if recipe.units.tokenizer is None:
            self._do("codebook", "clustered")
        self._do("units", "extracted")
        if not all(system.pretrained for system in recipe.systems.values()):
            self._train("text_lm", lambda: None)
        for name in recipe.systems:
            self._train("lm", lambda name=name: self._plan_lm(recipe, name), name)
        if any(system.speech_to_speech for system in recipe.systems.values()):
            if recipe.vocoder.from_elsewhere:
                self._do("vocoder", "taken from elsewhere")
            else:
                self._train("vocoder", lambda: None)
        for name, system in recipe.systems.items():
            if system.speech_to_speech:
                self._do("translate", "two utterances", name)
                if recipe.units.tokenizer is None and recipe.vocoder.function is None:  # exported models carry no code
                    self._do("export", "exported", name)
        self._do("score", "scored", optional=True)

    def _is_there(self, step: Step) -> bool:
        """Whether what a step did is still in the run."""
        return step.stage.startswith("export") or (self.layout.folder / step.stage / STAGE_FILE).exists()

    def _check(self, recipe: Recipe) -> None:
        """Raise InputError for what a later stage would refuse, before gigabytes of weights are written."""
        assert recipe.corpus.embedded is not None
        plan_digest(recipe.corpus.embedded)  # refuses where the speech engines are missing
        stages = ["units", "lm", "vocoder"]
        if self.given.encoder.pretrained and recipe.units.tokenizer is None:
            config = estimate.encoder_config(self.given.encoder.pretrained)
            check_layer(self.given.codebook.layer, config.num_hidden_layers)
            if FrontEnd.of(config).frame_rate != FRAME_RATE:  # that of the encoder which stands in for it below
                stages.remove("vocoder")
                check_vocoder_exists(self.given.vocoder)
        for system in chosen_systems(self.given).values():
            if system.pretrained:
                model_config(system.pretrained, recipe.text_lm.shape)
        without_models = replace(
            recipe,
            encoder=replace(recipe.encoder, pretrained=None),
            codebook=replace(recipe.codebook, layer=1),
            systems={name: replace(system, pretrained=None) for name, system in recipe.systems.items()},
            vocoder=self.given.vocoder,
        )
        Run(self.layout.folder, without_models).check(stages=stages)

    def _write_models(self) -> None:
        if self.given.encoder.pretrained and not (self.models / "encoder").exists():
            echo(f"rehearse: random weights in the shape of {self.given.encoder.pretrained}")
            write_encoder(self.models / "encoder", self.given.encoder.pretrained, self.small)
        for system in chosen_systems(self.given).values():
            if system.pretrained and not (self.models / model_name(system.pretrained)).exists():
                echo(f"rehearse: random weights in the shape of {system.pretrained}")
                write_language_model(self.models / model_name(system.pretrained), system.pretrained, self.small)

    def _train(self, stage: str, planned: Any, system: str = "") -> None:
        """A training that is killed after its first checkpoint, and goes on to its end and its evaluation."""
        expected = planned()
        self._check_room(stage, expected)
        self._do(stage, "one step and a checkpoint, killed", system, expected, kill=True)
        if self.steps[-1].status != "failed":
            self._do(stage, "resumed: one step, an evaluation, the model written", system, expected)

    def _do(
        self,
        stage: str,
        did: str,
        system: str = "",
        planned: float | None = None,
        kill: bool = False,
        optional: bool = False,
    ) -> None:
        step = Step(f"{stage}/{system}" if system else stage, did, planned=planned)
        for index, earlier in enumerate(self.steps):
            if (earlier.stage, earlier.did) == (step.stage, step.did) and earlier.status == "done":
                self.steps.append(self.steps.pop(index))
                return
        self.steps = [earlier for earlier in self.steps if (earlier.stage, earlier.did) != (step.stage, step.did)]
        code, message = self._child(stage, system, kill)
        record = self.folder / "step.json"
        if record.exists():
            found = read_json(record)
            step.seconds, step.gib = found["seconds"], found["gib"]
            record.unlink()
        if code != (-9 if kill else 0):
            step.status, step.note = "skipped" if optional and code == 2 else "failed", message
        self.steps.append(step)
        self.write()
        echo(f"rehearse: {step.stage}: {step.did}: {step.status} in {step.seconds:.0f} s {step.note}".rstrip())
        if step.status == "failed":
            raise InputError(f"rehearsal of {step.stage} failed: {message}; its log is in {self.folder / 'log.txt'}")

    def _child(self, stage: str, system: str, kill: bool) -> tuple[int, str]:
        """Do a stage in a process of its own; returns its exit code, and the last line that it wrote."""
        arguments = [str(self.layout.folder), str(self.folder / "step.json"), "kill" if kill else "full", stage]
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.recipe_file, self.layout.recipe)
        path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "unitweave.rehearsal.child", *arguments, *([system] if system else [])]
        with (self.folder / "log.txt").open("ab") as log:
            begin = log.tell()
            code = subprocess.run(command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": path}).returncode
        written = (self.folder / "log.txt").read_bytes()[begin:].decode(errors="replace").strip().splitlines()
        return code, (written or ["nothing was written"])[-1].removeprefix("unitweave: ")

    def _plan_encoder(self, recipe: Recipe) -> float:
        """GiB that `units plan` has for the encoder, for the batches of the rehearsal."""
        settings = recipe.encoder
        settings = replace(
            settings, training=replace(settings.training, precision=_precision(settings.training.precision))
        )
        seconds = [s for p in read_manifest(self.layout.corpus, "train") for s in (p.src_seconds, p.tgt_seconds)]
        filled = replace(settings, batch_seconds=min(settings.batch_seconds, sum(seconds)))
        plan = estimate.estimate(filled, max(seconds))
        return plan.states + plan.activations

    def _plan_lm(self, recipe: Recipe, name: str) -> float | None:
        """GiB that `lm plan` has for a system, without what only a GPU has, and the tokens it expects."""
        lengths = self.lengths(recipe, name)
        system = recipe.systems[name]
        training = replace(system.training, precision=_precision(system.training.precision))
        system = replace(system, training=training)
        memory = make_plan(name, system, recipe.codebook.num_units, recipe.text_lm.shape, lengths).memory
        return sum(size for part, size in memory.items() if part != "cuda" and (self.gpu or part != "logits")) or None

    def lengths(self, recipe: Recipe, name: str, from_units: bool = True) -> Lengths | None:
        """The lengths of the training sequences, as `lm plan` has them with and without the units."""
        system = recipe.systems[name]
        tokenizer = system.pretrained or str(self.layout.text_lm_model)
        return measure(system, self.layout.corpus, self.layout.units if from_units else None, tokenizer)

    def _check_room(self, stage: str, planned: float | None) -> None:
        free = torch.cuda.mem_get_info()[0] / GIB if self.gpu else _available()
        if planned is not None and planned > free:
            advice = "" if self.lora or stage != "lm" else "; --lora trains low-rank updates instead"
            raise InputError(f"{stage}: the plan needs {planned:.1f} GiB, but {free:.1f} GiB are free here{advice}")

    def tokens(self) -> list[dict[str, Any]]:
        """For each system, the tokens that the plan expected and those that were there."""
        recipe, _ = load_with(self.recipe_file, {})
        found = []
        for name in recipe.systems:
            log = self.layout.lm(name) / "log.jsonl"
            units, durations = (self.lengths(recipe, name, exact) for exact in (True, False))
            if log.exists() and units is not None and durations is not None:
                found.append(
                    {
                        "system": name,
                        "mean tokens from durations": round(float(durations.tokens.mean()), 1),
                        "mean tokens from units": round(float(units.tokens.mean()), 1),
                        "tokens of the last step": read_json_lines(log)[-1].get("tokens"),
                        "pairs of a step": recipe.systems[name].training.batch_size,
                    }
                )
        return found

    def write(self) -> None:
        """Write the report as JSON."""
        write_json(self.folder / REPORT_FILE, self.head | {"steps": [asdict(step) for step in self.steps]})

    def finish(self) -> None:
        """Add what the trained models were, and the tokens."""
        trained = [name for name in (self.layout.folder / "lm").glob("*") if (name / "stage.json").exists()]
        counts = {path.name: read_stage(self.layout.folder, f"lm/{path.name}").get("counts", {}) for path in trained}
        self.head |= {"tokens": self.tokens(), "parameters": {name: c.get("parameters") for name, c in counts.items()}}
        self.write()

    def _machine(self) -> str:
        if self.gpu:
            return str(torch.cuda.get_device_name())
        return f"CPU, {torch.get_num_threads()} threads, {_available():.0f} GiB free"


def _precision(wanted: Precision) -> Precision:
    return "bf16" if use_bf16(wanted) else "fp32"


def _available() -> float:
    """GiB of memory that a new process can have."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) / 2**20


def as_table(steps: Sequence[Step], tokens: Sequence[dict[str, Any]]) -> str:
    """The report as markdown."""
    rows = []
    for step in steps:
        planned = "" if step.planned is None else f"{step.planned:.2f}"
        off = "" if step.off is None else f"{100 * step.off:+.0f} %" + ("" if step.good else " !")
        did = step.did if step.status == "done" else f"{step.status}: {step.note}"
        rows.append((step.stage, did, f"{step.seconds:.0f}", f"{step.gib:.2f}", planned, off))
    lines = [markdown_table(["stage", "done", "seconds", "peak GiB", "plan GiB", "difference"], rows, "llr")]
    for count in tokens:
        exact, estimated = count["mean tokens from units"], count["mean tokens from durations"]
        lines.append(
            f"\n{count['system']}: {estimated:g} tokens a sequence planned from durations, {exact:g} from units "
            f"({100 * (exact / estimated - 1):+.0f} %); the last step had {count['tokens of the last step']} tokens in "
            f"{count['pairs of a step']} pairs"
        )
    return "\n".join(lines)
