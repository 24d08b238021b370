"""What scores depend on besides their settings and the speech, known without loading a model."""

from collections.abc import Iterable

from unitweave.config.score import ScoreSettings
from unitweave.metrics.intervals import bootstrap_seed
from unitweave.score.asr.checkpoints import identity as model_identity
from unitweave.score.asr.recognizers import choose_recognizer, identity
from unitweave.score.mos import installed


def scored_by(settings: ScoreSettings, languages: Iterable[str]) -> list[str]:
    """What scores depend on besides settings and speech: with another of these they are computed anew.

    Args:
        settings: How to score.
        languages: The target languages.

    Raises:
        InputError: The recognizer does not support one of these.
    """
    recognizer = choose_recognizer(settings.recognizer, settings.recognizer_model, languages)
    speakers = [f"speakers {model_identity(settings.speaker_model)}"] if settings.speaker_model else []
    return [identity(*recognizer), *installed(settings.mos), *speakers, str(bootstrap_seed())]
