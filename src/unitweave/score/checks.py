"""What can be known of scoring before anything is translated: that what it needs is there."""

from collections.abc import Iterable

from unitweave.config.score import ScoreSettings
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.score.comet import check_comet_program
from unitweave.score.speakers import load_speaker_model
from unitweave.training.devices import check_device


def check_scoring(settings: ScoreSettings, languages: Iterable[str]) -> None:
    """Raise InputError where scoring would refuse: recognizer and speaker model are loaded once, as a trial.

    Args:
        settings: How to score.
        languages: The target languages.
    """
    check_device(settings.device, "score.device")
    check_comet_program(settings)
    load_recognizer(*choose_recognizer(settings.recognizer, settings.recognizer_model, languages), settings.device)
    load_speaker_model(settings)
