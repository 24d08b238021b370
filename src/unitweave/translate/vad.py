"""Where somebody speaks in a recording: Silero's voice activity detector (silero-vad, MIT), and utterances of it."""

import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError

WINDOW, CONTEXT = 512, 64  # samples at 16 kHz: one probability every 32 ms
_WEIGHTS = "silero_vad_16k.safetensors"


@dataclass
class SegmentSettings:
    """How a long recording is cut into utterances."""

    threshold: float = 0.5  # probability above which speech begins; it ends 0.15 below
    shortest: float = 0.2  # seconds of speech below which a sound is none
    pause: float = 0.4  # seconds of silence that end an utterance
    margin: float = 0.12  # seconds kept around an utterance
    longest: float = 20.0  # seconds; a longer utterance is cut where speech is least probable


class SpeechDetector(nn.Module):
    """Silero's voice activity detector at 16 kHz, with the weights that silero-vad ships as safetensors.

    The package's code is not imported: that sets torch's number of threads for the whole process. These
    weights are another training than its TorchScript model's; on speech the two decide alike (tests).
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    @classmethod
    def load(cls) -> "SpeechDetector":
        """The detector with the weights of the installed silero-vad. Raises InputError when it is not installed."""
        found = importlib.util.find_spec("silero_vad")
        places = [Path(p) / "data" / _WEIGHTS for p in (found.submodule_search_locations or [])] if found else []
        path = next((p for p in places if p.exists()), None)
        if path is None:
            raise InputError("long recordings need silero-vad 6.2 or newer: pip install -U silero-vad")
        weights = load_file(path)
        names = {"lstm_cell.weight_ih": "lstm.weight_ih_l0", "lstm_cell.weight_hh": "lstm.weight_hh_l0",
                 "lstm_cell.bias_ih": "lstm.bias_ih_l0", "lstm_cell.bias_hh": "lstm.bias_hh_l0"}  # fmt: skip
        model = cls()
        model.load_state_dict({names.get(name, name): value for name, value in weights.items()})
        return model.eval()

    def forward(self, windows: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Probabilities [windows] of speech in consecutive windows [windows, CONTEXT + WINDOW], and the state after."""
        x = functional.pad(windows, (0, 64), mode="reflect")[:, None]  # [windows, 1, 640]
        x = self.stft_conv(x)  # [windows, 258, 4]
        x = (x[:, :129].square() + x[:, 129:].square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()  # at last [windows, 128, 1]
        hidden, state = self.lstm(x[:, :, 0], state)  # [windows, 128]; the LSTM takes them as one sequence
        return self.final_conv(hidden.relu()[:, :, None]).sigmoid()[:, 0, 0], state

    @torch.inference_mode()
    def probabilities(self, blocks: Iterable[np.ndarray]) -> np.ndarray:
        """Probability of speech, float32 [windows of 32 ms], in a recording given as blocks of 16 kHz samples."""
        state: tuple[Tensor, Tensor] | None = None
        held = np.zeros(CONTEXT, np.float32)  # the context, and samples that fill no window yet
        found = [np.zeros(0, np.float32)]
        for block in blocks:
            held = np.concatenate([held, block])
            count = (len(held) - CONTEXT) // WINDOW
            if count:
                found_now, state = self._run(held, count, state)
                found.append(found_now)
                held = held[count * WINDOW :]
        if len(held) > CONTEXT:
            found.append(self._run(np.pad(held, (0, CONTEXT + WINDOW - len(held))), 1, state)[0])
        return np.concatenate(found)

    def _run(
        self, held: np.ndarray, count: int, state: tuple[Tensor, Tensor] | None
    ) -> tuple[np.ndarray, tuple[Tensor, Tensor]]:
        windows = torch.from_numpy(held).unfold(0, CONTEXT + WINDOW, WINDOW)[:count]
        probabilities, state = self(windows.contiguous(), state)
        return probabilities.numpy(), state


def speech_spans(probabilities: Sequence[float] | np.ndarray, settings: SegmentSettings) -> list[tuple[int, int]]:
    """Samples [start, end) of each utterance, from the probability of speech in every window of 32 ms.

    Speech begins above the threshold and ends 0.15 below it; gaps shorter than `pause` are bridged, sounds
    shorter than `shortest` are left out, and what is longer than `longest` is cut where speech is least
    probable. Spans are in order and do not overlap.
    """
    p = np.asarray(probabilities)
    seconds = WINDOW / SAMPLE_RATE
    found: list[list[int]] = []
    inside = False
    for i, value in enumerate(p.tolist()):
        if not inside and value >= settings.threshold:
            if found and (i - found[-1][1]) * seconds < settings.pause:
                found[-1][1] = i + 1
            else:
                found.append([i, i + 1])
            inside = True
        elif inside:
            inside = value >= settings.threshold - 0.15
            if inside:
                found[-1][1] = i + 1
    most = max(2, int(settings.longest / seconds))
    pieces: list[tuple[int, int]] = []
    for start, end in found:
        if (end - start) * seconds >= settings.shortest:
            pieces += _cut(p, start, end, most)
    return _widened(pieces, len(p), settings)


def _cut(p: np.ndarray, start: int, end: int, most: int) -> list[tuple[int, int]]:
    pieces = []
    while end - start > most:
        middle = start + most // 2
        at = middle + int(p[middle : start + most].argmin())
        pieces.append((start, at))
        start = at
    return [*pieces, (start, end)]


def _widened(pieces: list[tuple[int, int]], windows: int, settings: SegmentSettings) -> list[tuple[int, int]]:
    """Pieces in samples, with a margin on either side, at most half of the gap to the neighbor."""
    margin = round(settings.margin * SAMPLE_RATE)
    edges = [0, *(x * WINDOW for piece in pieces for x in piece), windows * WINDOW]
    spans = []
    for i, (start, end) in enumerate(pieces):
        before, after = edges[2 * i], edges[2 * i + 3]
        room_before = start * WINDOW - before if i == 0 else (start * WINDOW - before) // 2
        room_after = after - end * WINDOW if i == len(pieces) - 1 else (after - end * WINDOW) // 2
        spans.append((start * WINDOW - min(margin, room_before), end * WINDOW + min(margin, room_after)))
    return spans


def cut_out(blocks: Iterable[np.ndarray], spans: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """The samples of each span, in order, of a recording given as blocks; keeps no more than a span and a block."""
    waiting = list(spans)
    held: list[np.ndarray] = []
    first = seen = 0  # samples before the first held block; samples read so far
    for block in blocks:
        held.append(block)
        seen += len(block)
        while waiting and waiting[0][1] <= seen:
            yield _between(held, first, waiting.pop(0))
        keep_from = waiting[0][0] if waiting else seen
        while held and first + len(held[0]) <= keep_from:
            first += len(held.pop(0))
    for span in waiting:  # the last window may reach beyond the end
        yield _between(held, first, span)


def _between(held: Sequence[np.ndarray], first: int, span: tuple[int, int]) -> np.ndarray:
    samples = np.concatenate(held) if held else np.zeros(0, np.float32)
    return samples[max(0, span[0] - first) : max(0, span[1] - first)].copy()
