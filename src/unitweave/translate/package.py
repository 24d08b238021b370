"""The parts of a translator: in a run folder, in an exported folder, or on the hub.

An exported folder is one model as the hub has them: the language model and its tokenizer are at the top, so
that plain transformers loads them by the same name, with encoder/, codebook/ and vocoder/ next to them.
package.json records what belongs together.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitweave.config.recipe import parse_settings
from unitweave.config.translate import DecodingSettings, TranslateSettings
from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError, first_line
from unitweave.core.files import file_digest, read_json, read_json_object, read_yaml
from unitweave.core.functions import untrusted
from unitweave.core.layout import RunLayout

PACKAGE_FILE = "package.json"
INT8_WEIGHTS_FILE = "model-int8.safetensors"  # in place of the language model's own, after --engine int8
VLLM_FILE = "vllm.json"  # what that engine needs to keep to the phases, after --engine vllm
FORMAT = 2
# No pickles, no code: all that is ever fetched from the hub.
PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model", "README.md", "examples/*.wav"]
FOLDERS = ("encoder", "codebook", "vocoder", "examples")
_NOTHING = "must be a run folder, an exported model, or the name of one on the hub (OWNER/NAME)"


@dataclass(frozen=True)
class Parts:
    """The folders of a translator's parts."""

    language_model: Path
    encoder: Path
    codebook: Path
    vocoder: Path
    settings: DecodingSettings = field(default_factory=DecodingSettings)  # how the maker decodes with it
    units: ExtractionSettings = field(default_factory=ExtractionSettings)  # the tokenizer, where it is not ours
    trust_functions: bool = False  # whether Python functions that the parts name may be imported and called
    root: Path | None = None  # the folder that all of it came with

    @classmethod
    def of_run(cls, run: Path, system: str | None = None) -> "Parts":
        """The parts of one system of a run folder. Raises InputError when there is no such system."""
        layout = RunLayout(run)
        trained = layout.trained
        if system is None:
            system = trained[0] if len(trained) == 1 else "scheduled"
        if system not in trained:
            raise InputError(f"{run}: no trained system {system!r}; trained systems: {', '.join(trained) or 'none'}")
        recipe = read_recipe(run)
        settings = parse_settings(TranslateSettings, recipe.get("translate") or {}, "translate").decoding
        units = parse_settings(ExtractionSettings, recipe.get("units") or {}, "units")
        if units.tokenizer is None and layout.units.is_dir() and not layout.codebook.is_dir():
            raise InputError(
                f"{run}: its units were imported, and no tokenizer is set; name the one that made them, "
                f"units.tokenizer in {layout.recipe.name}"
            )
        model = layout.lm_model(system)
        return cls(model, layout.encoder_model, layout.codebook, layout.vocoder, settings, units, root=run)

    @classmethod
    def of_package(cls, folder: Path) -> "Parts":
        """The parts of an exported folder. Raises InputError when it is of another version or a part was replaced."""
        about = read_json(folder / PACKAGE_FILE)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"{folder / PACKAGE_FILE}: written by another version of unitweave; export the run again")
        settings = parse_settings(DecodingSettings, about.get("decode") or {}, "decode")
        return cls(folder, folder / "encoder", folder / "codebook", folder / "vocoder", settings, root=folder)

    def in_voice(self, speaker: str | None) -> "Parts":
        """These parts with another speaker of a multi-speaker vocoder; None keeps that of the settings.

        Raises:
            InputError: There is no vocoder, or its configuration lists its speakers and does not list this one.
        """
        if speaker is None:
            return self
        config = self.vocoder / "config.json"
        if not config.exists():
            raise InputError("--speaker: this model has no vocoder")
        voices = read_json_object(config).get("speakers")
        if isinstance(voices, list) and speaker not in voices:
            known = f"must be one of {', '.join(map(str, voices))}" if voices else "the vocoder has a single voice"
            raise InputError(f"--speaker: {known} (got {speaker!r})")
        return replace(self, settings=replace(self.settings, speaker=speaker))

    def examples(self) -> list[Path]:
        """Recordings to try the model with: an export's examples, or three of a run's test split.

        A folder of somebody else's may link to any file, and its manifest name any: none outside is taken.
        """
        own = self.language_model / "examples"
        if own.is_dir():
            return [path for path in sorted(own.glob("*.wav")) if self._came_with(path)]
        from unitweave.core.manifest import FILE_NAME, read_manifest  # pyarrow: not for a model that is refused

        corpus = self.encoder.parent.parent / "corpus"
        if not (corpus / FILE_NAME).exists():
            return []
        recordings = [Path(p.src_audio) for p in read_manifest(corpus, "test") if p.src_audio]
        return [path for path in recordings[:: max(1, len(recordings) // 3)][:3] if self._came_with(path)]

    def _came_with(self, path: Path) -> bool:
        """Whether a path is a file in the folder that the parts came with, links followed."""
        return self.root is not None and path.is_file() and path.resolve().is_relative_to(self.root.resolve())

    def utterance_seconds(self) -> float | None:
        """The longest source recording of the run's training data, for models whose record does not say it."""
        from unitweave.core.manifest import FILE_NAME, read_manifest

        corpus = self.encoder.parent.parent / "corpus"
        if not (corpus / FILE_NAME).exists():
            return None
        return max((pair.src_seconds for pair in read_manifest(corpus, "train")), default=0.0) or None

    def check(self) -> str:
        """Raise InputError unless all parts speak the units of one codebook; returns its fingerprint."""
        from unitweave.lm.model.vocabulary import Vocabulary

        vocabulary = Vocabulary.load(self.language_model)
        if self.units.tokenizer is not None:
            book = vocabulary.codebook  # whether it is the tokenizer's is seen when that is there
        else:
            book = str(read_json_object(self.codebook / "codebook.json").get("fingerprint"))
        if vocabulary.codebook != book:
            raise InputError(
                f"{self.language_model}: trained on units of codebook {vocabulary.codebook}, not of {book}"
            )
        if not vocabulary.has_speech:
            return str(book)
        config = read_json(self.vocoder / "config.json")
        trained_on = config.get("codebook") if isinstance(config, dict) else None
        if trained_on != book:
            raise InputError(f"{self.vocoder}: trained on units of codebook {trained_on}, not of {book}")
        return str(book)

    def fingerprints(self) -> dict[str, Any]:
        """Digest of each part's weights; a model that was trained to text only has no vocoder."""
        from unitweave.lm.model.vocabulary import Vocabulary

        weights = sorted(self.language_model.glob("*.safetensors"))
        if not weights:
            raise InputError(f"{self.language_model}: no safetensors weights in this folder")
        found = {
            "language_model": {path.name: file_digest(path) for path in weights},
            "encoder": file_digest(self.encoder / "model.safetensors"),
            "codebook": file_digest(self.codebook / "codebook.safetensors"),
        }
        if Vocabulary.load(self.language_model).has_speech:
            found["vocoder"] = file_digest(self.vocoder / "model.safetensors")
        return found


def read_recipe(run: Path) -> dict[str, Any]:
    """The recipe that a run folder was made with; empty where there is none. Raises InputError when it is broken."""
    path = RunLayout(run).recipe
    content = read_yaml(path) if path.exists() else {}
    if not isinstance(content, dict):
        return {}
    for section, settings in content.items():
        if settings is not None and not isinstance(settings, dict):
            raise InputError(f"{path}: {section} must be a mapping of settings")
    return content


def find_parts(path: Path | str, system: str | None = None, trust_functions: bool = False) -> Parts:
    """The parts behind a run folder, an exported folder or a name on the hub.

    Args:
        path: The folder or the name.
        system: Which system of a run folder (default: scheduled, or the only one).
        trust_functions: Whether Python functions that a run's recipe or vocoder names may be imported and called. They
            are code that the folder chooses, so this is only for runs that one knows.

    Raises:
        InputError: There are no such parts, or they need a function that is not trusted.
    """
    folder = Path(path)
    if (folder / PACKAGE_FILE).exists():
        if system is not None:
            raise InputError(f"{folder}: an exported model has a single system; remove --system")
        return Parts.of_package(folder)
    if folder.is_dir():
        parts = Parts.of_run(folder, system)
        if parts.units.tokenizer is not None and not trust_functions:
            raise InputError(untrusted(folder, f"units.tokenizer {parts.units.tokenizer}"))
        return replace(parts, trust_functions=trust_functions)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(path)):
        folder = download(str(path))
        return replace(Parts.of_package(folder), root=folder.parents[1])  # in the hub's cache files are links
    raise InputError(f"{path}: {_NOTHING}")


def download(name: str) -> Path:
    """Fetch an exported model from the hub (or find it in the local cache); returns its folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=PATTERNS))
    except HFValidationError:
        raise InputError(f"{name}: {_NOTHING}") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{name}: not a local folder, and could not be loaded from the hub ({first_line(error)[:200]})"
        ) from None
    if not (folder / PACKAGE_FILE).exists():
        raise InputError(f"{name}: a model on the hub, but not one that 'unitweave export' wrote")
    return folder
