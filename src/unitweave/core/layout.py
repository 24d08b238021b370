"""Where everything in a run folder lies: the one place that spells its paths."""

from dataclasses import dataclass
from pathlib import Path

from unitweave.core.errors import InputError

DEV_FILE = "dev.jsonl"  # in a system's folder: the evaluations on the dev split


@dataclass(frozen=True)
class RunLayout:
    """The folders and files of a run. A folder with a `stage.json` is a stage, named by its path in the run."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe that the run was made with."""
        return self.folder / "recipe.yaml"

    @property
    def report(self) -> Path:
        """The HTML page about the run."""
        return self.folder / "report.html"

    @property
    def corpus(self) -> Path:
        """The manifest of utterance pairs and, for a corpus made on the spot, its recordings."""
        return self.folder / "corpus"

    @property
    def encoder(self) -> Path:
        """The speech encoder's training."""
        return self.folder / "encoder"

    @property
    def encoder_model(self) -> Path:
        """The speech encoder, as `save_pretrained` writes it."""
        return self.encoder / "model"

    @property
    def codebook(self) -> Path:
        """The k-means codebook."""
        return self.folder / "codebook"

    @property
    def units(self) -> Path:
        """Units and word frames of every recording."""
        return self.folder / "units"

    @property
    def text_lm(self) -> Path:
        """The small text language model's training."""
        return self.folder / "text_lm"

    @property
    def text_lm_model(self) -> Path:
        """The small text language model."""
        return self.text_lm / "model"

    def lm(self, system: str) -> Path:
        """The fine-tuning of one system's language model."""
        return self.folder / "lm" / system

    def lm_model(self, system: str) -> Path:
        """One system's language model."""
        return self.lm(system) / "model"

    @property
    def vocoder(self) -> Path:
        """The unit vocoder."""
        return self.folder / "vocoder"

    def translate(self, system: str) -> Path:
        """The test split as translated by one system."""
        return self.folder / "translate" / system

    @property
    def score(self) -> Path:
        """The scores of all systems."""
        return self.folder / "score"

    def subset(self, data: str) -> Path:
        """An experiment's manifest of one amount of training speech."""
        return self.folder / "subsets" / data

    def scores(self, system: str) -> Path:
        """An experiment's scores of one system."""
        return self.folder / "scores" / system

    @property
    def trained(self) -> list[str]:
        """Names of the systems whose language model is there, sorted."""
        return sorted(path.parent.name for path in self.folder.glob("lm/*/model"))

    def name(self, folder: Path) -> str:
        """The name of the stage that owns `folder`, as in "lm/scheduled"."""
        return folder.relative_to(self.folder).as_posix()


def check_run_folder(folder: Path) -> None:
    """Raise InputError when `folder` cannot become or be a run folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a run folder")
    if "\0" in str(folder):
        raise InputError("--out: invalid folder name")
