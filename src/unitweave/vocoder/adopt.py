"""A vocoder from elsewhere in place of a training: ours from another run, fairseq's, or a function of the user."""

from pathlib import Path

import numpy as np

from unitweave.config.vocoder import VocoderSettings
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object
from unitweave.core.stage import StageResult
from unitweave.units.dataset import read_units_metadata, same_rate, units_per_second
from unitweave.vocoder.base import CONFIG_FILE, Vocoder
from unitweave.vocoder.fairseq import FairseqVocoder
from unitweave.vocoder.function import FunctionVocoder

_TRIAL_SECONDS = 2.0
_SLACK_SECONDS = 0.1  # by which a trial's speech may be longer or shorter, next to a tenth of its length


def adopt_vocoder(folder: Path, settings: VocoderSettings, units: Path) -> StageResult:
    """Take the vocoder that the settings name (`pretrained` or `function`) for the units of a run.

    It synthesizes two seconds as a trial: what does not fit the units is refused here, and not after the translations.

    Raises:
        InputError: It is no vocoder, or one of other units, another number of units or another frame rate.
    """
    metadata = read_units_metadata(units)
    vocoder = named_vocoder(settings, int(metadata["num_units"]), units_per_second(metadata), metadata["codebook"])
    vocoder.save_pretrained(folder)
    return StageResult(counts={"sample_rate": vocoder.sample_rate, "speakers": max(1, len(vocoder.speakers))})


def named_vocoder(settings: VocoderSettings, num_units: int, frame_rate: float, codebook: str | None = None) -> Vocoder:
    """The vocoder that the settings name, tried; the codebook is left alone where it is not known yet (None).

    Raises:
        InputError: As for `adopt_vocoder`.
    """
    if settings.function is not None:
        name = f"vocoder.function {settings.function}"
        vocoder: Vocoder = FunctionVocoder(
            settings.function, settings.options, num_units=num_units, codebook=codebook or "", frame_rate=frame_rate,
            sample_rate=settings.sample_rate, speakers=settings.speakers,
            predicts_durations=settings.duration_predictor,
        )  # fmt: skip
    else:
        name = f"vocoder.pretrained {settings.pretrained}"
        vocoder = _pretrained(Path(str(settings.pretrained)), codebook)
    if vocoder.num_units != num_units:
        raise InputError(f"{name}: takes {vocoder.num_units} units, but the codebook has {num_units}")
    if not same_rate(vocoder.frame_rate, frame_rate):
        raise InputError(f"{name}: takes {vocoder.frame_rate:g} units a second, but the units have {frame_rate:g}")
    _try(vocoder, name)
    return vocoder


def _pretrained(path: Path, codebook: str | None) -> Vocoder:
    if path.is_file():
        return FairseqVocoder.convert(path, codebook or "")
    if not path.is_dir():
        raise InputError(f"vocoder.pretrained {path}: no such file or folder")
    record = read_json_object(path / CONFIG_FILE)
    if record.get("generator") == "function":
        raise InputError(f"vocoder.pretrained {path}: contains Python code; name its function in vocoder.function")
    if "generator" in record:
        return Vocoder.from_pretrained(path, codebook)
    checkpoints = sorted(
        file for file in path.iterdir() if file.is_file() and file.suffix not in (".json", ".txt", ".md")
    )
    if len(checkpoints) != 1:
        raise InputError(
            f"vocoder.pretrained {path}: {len(checkpoints)} files that could be the checkpoint; name the file"
        )
    return FairseqVocoder.convert(checkpoints[0], codebook or "")


def _try(vocoder: Vocoder, name: str) -> None:
    """Raise InputError unless the speech of some units lasts as long as the units do, in the first and last voice."""
    units = np.arange(max(1, round(_TRIAL_SECONDS * vocoder.frame_rate))) % vocoder.num_units
    if len(vocoder.speakers) > 1:
        vocoder.synthesize([units], vocoder.speakers[-1])
    (waveform,) = vocoder.synthesize([units])
    seconds, wanted = len(waveform) / vocoder.sample_rate, len(units) / vocoder.frame_rate
    if not vocoder.predicts_durations and abs(seconds - wanted) > _SLACK_SECONDS + 0.1 * wanted:
        raise InputError(
            f"{name}: makes {seconds:.2f} s of speech from {wanted:.2f} s of units; check vocoder.sample_rate "
            f"({vocoder.sample_rate}) and the units' frame rate ({vocoder.frame_rate:g})"
        )
