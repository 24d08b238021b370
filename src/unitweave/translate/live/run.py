"""One live session from its source to its files: what `unitweave live` does."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from unitweave.core.signals import Stopped
from unitweave.translate.live.events import LiveEvent, SpeechChunk
from unitweave.translate.live.recording import LiveRecording
from unitweave.translate.live.sources import Loudspeaker
from unitweave.translate.live.translator import LiveTranslator


def run_live(
    session: LiveTranslator,
    source: Iterable[np.ndarray],
    stem: Path | None,
    loudspeaker: Loudspeaker | None,
    show: Callable[[LiveEvent], None],
    text_only: bool = False,
) -> tuple[str | None, int]:
    """Translate a source until it ends or is interrupted; what was said so far is kept either way.

    Args:
        session: The session.
        source: Blocks of samples, float32 at 16 kHz.
        stem: Where STEM.wav, STEM.srt and STEM.vtt go; None writes no files.
        loudspeaker: Plays the speech.
        show: Gets every event.
        text_only: No speech is made, so there is no wav file.

    Returns:
        What was written, in a line (None where nothing was), and the number of the signal that ended it; 0 for none.

    Raises:
        InputError: The source cannot be read on, or the files not be written; what was written before is kept.
    """
    ended = 0
    with ExitStack() as stack:
        files = stack.enter_context(LiveRecording(stem, not text_only)) if stem is not None else None
        try:
            for event in session.translate(source):
                if files is not None:
                    files.write(event)
                if loudspeaker is not None and isinstance(event, SpeechChunk):
                    loudspeaker.play(event.waveform)
                show(event)
        except KeyboardInterrupt:
            pass  # the way to end a session with a microphone
        except Stopped as stopped:
            ended = stopped.number
        finally:
            if loudspeaker is not None:
                loudspeaker.close(ended == 0)
    return (files.written if files is not None else None), ended
