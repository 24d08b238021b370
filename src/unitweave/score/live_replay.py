"""Recordings replayed as live sessions, several at a time: what each says, when, and what that takes to compute."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from unitweave.config.live import LiveSettings
from unitweave.translate.live.decoding import LiveDecoder
from unitweave.translate.live.events import LiveEvent
from unitweave.translate.live.hypotheses import Answer, Request
from unitweave.translate.live.translator import LiveTranslator
from unitweave.translate.translator import Translator

BLOCK = 1600  # samples fed at a time; results do not depend on it


@dataclass
class Replay:
    """One recording.

    Attributes:
        events: What happened, each with the seconds at which it is computed.
        computing: Seconds of computing: of a batch, its recordings share them out.
    """

    events: list[tuple[LiveEvent, float]] = field(default_factory=list)
    computing: float = 0.0


class _Session:
    """A session that is told that computing takes no time, so that what it commits does not depend on the machine.

    A computer that cannot keep up falls behind here, where a real session would decode less often.
    """

    def __init__(self, translator: Translator, settings: LiveSettings, waveform: np.ndarray) -> None:
        self.replay, self._busy = Replay(), 0.0
        self.session = LiveTranslator(translator, settings).session
        self._blocks = [waveform[at : at + BLOCK] for at in range(0, len(waveform), BLOCK)][::-1]
        self.open = True  # whether anything is left to be fed

    def advance(self) -> Request | None:
        """Feed it until it has a request, or all is fed."""
        while self.session.request is None and self.open:
            self.open = bool(self._blocks)
            self._keep(self.session.feed(self._blocks.pop()) if self.open else self.session.finish())
        return self.session.request

    def answer(self, answer: Answer, seconds: float) -> None:
        """Answer its request, which took so long."""
        self.replay.computing += seconds
        self._busy = max(self._busy, self.session.seconds) + seconds
        self._keep(self.session.answer(answer, 0.0))

    def _keep(self, events: Sequence[LiveEvent]) -> None:
        self.replay.events += [(event, max(self._busy, event.time)) for event in events]


def replay(
    translator: Translator, settings: LiveSettings, waveforms: Sequence[np.ndarray], batch_size: int = 1
) -> Iterator[Replay]:
    """Replay recordings, in their order, `batch_size` sessions at a time; what they say does not depend on it."""
    decoder = LiveDecoder(translator)
    for first in range(0, len(waveforms), batch_size):
        sessions = [_Session(translator, settings, one) for one in waveforms[first : first + batch_size]]
        while asking := [(one, request) for one in sessions if (request := one.advance()) is not None]:
            answers, seconds = answer_timed(decoder, [request for _, request in asking])
            for (session, _), answer in zip(asking, answers, strict=True):
                session.answer(answer, seconds / len(asking))
        yield from (session.replay for session in sessions)


def answer_timed(decoder: LiveDecoder, requests: Sequence[Request]) -> tuple[list[Answer], float]:
    """The answers to requests, and the seconds that they took together."""
    start = time.perf_counter()
    answers = decoder.answer_all(requests)
    return answers, time.perf_counter() - start
