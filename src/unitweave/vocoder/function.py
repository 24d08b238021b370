"""A vocoder of the user's: any Python function from units to a waveform, under the protocol that all parts use."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from unitweave.core.arrays import about_array, as_array
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object, write_json
from unitweave.core.functions import function_errors, imported
from unitweave.vocoder.base import CONFIG_FILE, Vocoder

_FIELDS = ("num_units", "codebook", "frame_rate", "sample_rate", "speakers", "predicts_durations")

_LOUDEST = 100.0  # a voice may exceed 1 a little, and is cut off there; more are integers that were not divided

# Units int64 [frames] and the name of a speaker (None: the only voice) -> float32 [samples].
Synthesis = Callable[[np.ndarray, str | None], np.ndarray]


class FunctionVocoder(Vocoder):
    """Calls a function of the user for each utterance.

    Args:
        function: `module:name`; called once with `options` as keywords, it returns the function from units and speaker
            to a waveform.
        options: For instance the folder of its checkpoint.
        about: The attributes of `Vocoder`.
    """

    def __init__(self, function: str, options: dict[str, Any], **about: Any) -> None:
        super().__init__(**about)
        self.function, self.options = function, options
        self._name = f"vocoder.function {function}"
        load = imported(function, "vocoder.function")
        with function_errors(function, self._name):
            made = load(**options)
        if not callable(made):
            raise InputError(f"{self._name}: must return a function of units and speaker (got {made!r:.80})")
        self._synthesis: Synthesis = made

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load from the folder that `save_pretrained` wrote. Raises InputError where that is damaged."""
        record = read_json_object(folder / CONFIG_FILE)
        try:
            about = {name: record[name] for name in _FIELDS}
            return cls(record["function"], record["options"], **about)
        except KeyError as error:
            raise InputError(f"{folder / CONFIG_FILE}: damaged: lacks {error}; import the vocoder again") from None

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json, which names the function."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"generator": "function", "function": self.function, "options": self.options}
        write_json(folder / CONFIG_FILE, about | {name: getattr(self, name) for name in _FIELDS})

    def synthesize(
        self, units: Sequence[np.ndarray], speaker: str | None = None, deduplicated: bool = False
    ) -> list[np.ndarray]:
        """As `Vocoder.synthesize`, each utterance alone."""
        if deduplicated and not self.predicts_durations:
            raise InputError("the vocoder takes repeated units (vocoder.duration_predictor is false)")
        index = self.speaker_index(speaker)
        name = None if index is None else self.speakers[index]
        return [self._one(self.checked(row, f"utterance {i}"), name) for i, row in enumerate(units)]

    def _one(self, units: np.ndarray, speaker: str | None) -> np.ndarray:
        if not len(units):
            return np.zeros(0, np.float32)
        with function_errors(self.function, self._name):
            made = self._synthesis(units, speaker)
        waveform = as_array(made)
        if waveform is None or waveform.ndim != 1 or (len(waveform) and waveform.dtype.kind != "f"):
            raise InputError(
                f"{self._name}: must return one channel of float samples [samples] (got {about_array(made, waveform)})"
            )
        peak = float(np.abs(waveform).max(initial=0.0))
        if not peak <= _LOUDEST:
            raise InputError(f"{self._name}: must return finite samples from -1 to 1 (got {peak:g})")
        return waveform.astype(np.float32)
