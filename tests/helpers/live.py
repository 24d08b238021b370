"""A session replayed with a model that is written down."""

import numpy as np

from unitweave.config.live import LiveSettings
from unitweave.translate.live.events import LiveEvent
from unitweave.translate.live.hypotheses import Answer, Hypothesis, Request, TextRequest, Word
from unitweave.translate.live.session import LiveSession

RATE = 16_000


def loud(window: np.ndarray) -> float:
    """A detector: whether a window is loud."""
    return float(np.abs(window).max() > 0.1)


def signal(*parts: float) -> np.ndarray:
    """Seconds of speech and of silence in turn, beginning with silence."""
    pieces = [np.full(round(s * RATE), 0.5 * (i % 2), np.float32) for i, s in enumerate(parts)]
    return np.concatenate(pieces)


class SpacelessModel:
    """Translates into Chinese, three words a second, one of which is Latin."""

    words = (Word("今天", (1,), False), Word("我", (2,), False), Word("用", (3,), False), Word("Python", (4,), True),
             Word("写", (5,), True), Word("程序", (6,), False), Word("，", (7,), False), Word("好", (8,), False),
             Word("吗", (9,), False), Word("？", (10,), False))  # fmt: skip
    text = "今天我用 Python 写程序，好吗？"

    def answer(self, request: Request) -> tuple[Answer, float]:
        """The words that were heard."""
        assert isinstance(request, TextRequest)
        words = self.words[: int(3 * request.heard)]
        return Hypothesis(request.heard, request.final, "x", words, language="es"), 0.1


def replay(samples: np.ndarray, size: int, model: SpacelessModel, settings: LiveSettings) -> list[LiveEvent]:
    """The events of samples fed `size` at a time."""
    session, events = LiveSession(settings, loud), []
    for at in range(0, len(samples) + size, size):
        found = session.feed(samples[at : at + size]) if at < len(samples) else session.finish()
        events += found
        while session.request is not None:
            events += session.answer(*model.answer(session.request))
    return events
