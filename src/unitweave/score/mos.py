"""Predicted mean opinion scores: how natural the speech sounds, on a scale from 1 to 5.

Predictors are optional: one that is missing is skipped with a note, and scoring goes on.
"""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.functions import is_installed

UTMOS_HUB = "tarepan/SpeechMOS:v1.2.0"


class Predictor(Protocol):
    """One MOS predictor. `signature` names it and its revision."""

    signature: str

    def predict(self, waveform: np.ndarray) -> dict[str, float]:
        """Named scores, 1 to 5, of a float32 waveform [samples] at 16 kHz."""


def load_predictors(names: Sequence[str], device: str = "auto") -> tuple[list[Predictor], list[str]]:
    """The predictors of `names` that are available, and a note for each that is not."""
    predictors: list[Predictor] = []
    notes = []
    for name in names:
        try:
            predictors.append(Dnsmos() if name == "dnsmos" else Utmos(device))
        except _Missing as missing:
            notes.append(f"{name} skipped: {missing}")
    return predictors, notes


def installed(names: Sequence[str]) -> list[str]:
    """Those of `names` whose packages are installed, with versions; UTMOS, which comes from torch.hub, always."""
    packages = is_installed("speechmos") and is_installed("onnxruntime")
    predictors = [f"dnsmos-{importlib.metadata.version('speechmos')}"] if "dnsmos" in names and packages else []
    return [*predictors, *(name for name in names if name != "dnsmos")]


class Dnsmos:
    """DNSMOS P.835 (Reddy et al. 2022): signal, background, overall. Offline, from the package speechmos.

    Only the network of that package is used, through onnxruntime, so that librosa is not needed.
    The network takes 9.01 s: shorter speech is repeated, longer speech scored every second and
    averaged, as in the original.
    """

    window = 9.01  # seconds
    # The original's polynomials from the network's output to the scale of the listening test.
    curves: ClassVar = {
        "dnsmos_sig": np.poly1d([-0.08397278, 1.22083953, 0.0052439]),
        "dnsmos_bak": np.poly1d([-0.13166888, 1.60915514, -0.39604546]),
        "dnsmos_ovrl": np.poly1d([-0.06766283, 1.11546468, 0.04602535]),
    }

    def __init__(self) -> None:
        package = importlib.util.find_spec("speechmos")
        if package is None or not (is_installed("speechmos") and is_installed("onnxruntime")):
            raise _Missing("not installed; try: pip install speechmos onnxruntime")
        import onnxruntime
        import torch

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = max(1, torch.get_num_threads())
        path = Path(str(package.origin)).parent / "dnsmos_models" / "sig_bak_ovr.onnx"
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.signature = f"DNSMOS-P.835,speechmos-{importlib.metadata.version('speechmos')}"

    def predict(self, waveform: np.ndarray) -> dict[str, float]:
        """dnsmos_sig, dnsmos_bak and dnsmos_ovrl of [samples] at 16 kHz."""
        size = int(self.window * SAMPLE_RATE)
        audio = np.clip(waveform, -1.0, 1.0).astype(np.float32)
        while len(audio) < size:
            audio = np.concatenate([audio, audio])
        hops = int(len(audio) // SAMPLE_RATE - self.window) + 1
        # The original computes a window's end in floating point and skips windows that lose a sample by it.
        windows = [audio[i * SAMPLE_RATE : int((i + self.window) * SAMPLE_RATE)] for i in range(hops)]
        raw = [self._session.run(None, {"input_1": w[None]})[0][0] for w in windows if len(w) >= size]
        scores = np.mean([[curve(v) for curve, v in zip(self.curves.values(), r, strict=True)] for r in raw], axis=0)
        return dict(zip(self.curves, map(float, scores), strict=True))


class Utmos:
    """UTMOS22 strong learner (Saeki et al. 2022) from SpeechMOS 1.2.0 through torch.hub; needs the network once."""

    def __init__(self, device: str) -> None:
        import torch

        from unitweave.training.devices import resolve_device

        try:
            self._model: Any = torch.hub.load(UTMOS_HUB, "utmos22_strong", trust_repo=True, verbose=False)
        except Exception as error:
            # torch.hub fails in many ways, depending on the network; whatever it is, scoring goes on without.
            raise _Missing(f"torch.hub could not load {UTMOS_HUB} ({str(error) or type(error).__name__})") from None
        self._device = resolve_device(device)
        self._model = self._model.to(self._device).eval()
        self.signature = f"utmos22_strong,{UTMOS_HUB}"

    def predict(self, waveform: np.ndarray) -> dict[str, float]:
        """utmos of [samples] at 16 kHz."""
        import torch

        with torch.inference_mode():
            score = self._model(torch.from_numpy(waveform)[None].to(self._device), sr=SAMPLE_RATE)  # [1]
        return {"utmos": float(score.item())}


class _Missing(Exception):
    """A predictor that is not available, and why."""
