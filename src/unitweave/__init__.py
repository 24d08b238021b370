"""unitweave: train LLMs for speech-to-speech translation with scheduled interleaved speech-text training.

Everything in `__all__` can be imported from here. Names are loaded on first use (PEP 562), so that
`import unitweave` itself is quick and imports neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from unitweave.config.interleave import InterleaveSettings as InterleaveSettings
    from unitweave.config.interleave import ScheduleSettings as ScheduleSettings
    from unitweave.config.live import LiveSettings as LiveSettings
    from unitweave.config.recipe import Recipe as Recipe
    from unitweave.config.recipe import load_recipe as load_recipe
    from unitweave.config.translate import DecodingSettings as DecodingSettings
    from unitweave.core.errors import InputError as InputError
    from unitweave.interleaving.schedule import text_ratio as text_ratio
    from unitweave.interleaving.sequence import Example as Example
    from unitweave.interleaving.sequence import Markers as Markers
    from unitweave.interleaving.sequence import Speech as Speech
    from unitweave.interleaving.sequence import TrainingSequence as TrainingSequence
    from unitweave.interleaving.sequence import interleave as interleave
    from unitweave.interleaving.sequence import prepare_speech as prepare_speech
    from unitweave.lm.data.tokens import WordTokens as WordTokens
    from unitweave.lm.model.vocabulary import Vocabulary as Vocabulary
    from unitweave.lm.model.vocabulary import extend_model as extend_model
    from unitweave.lm.model.vocabulary import extend_tokenizer as extend_tokenizer
    from unitweave.pipeline import run as run
    from unitweave.translate.decode import PhaseDecoder as PhaseDecoder
    from unitweave.translate.live.translator import LiveTranslator as LiveTranslator
    from unitweave.translate.translator import SpeechTranslation as SpeechTranslation
    from unitweave.translate.translator import Translator as Translator
    from unitweave.units.align import forced_align as forced_align
    from unitweave.units.codebook import Codebook as Codebook
    from unitweave.units.extractor import UnitExtractor as UnitExtractor
    from unitweave.vocoder.base import Vocoder as Vocoder

# Where each name lives. The block above says the same to type checkers; a test holds the two together.
_HOMES = {
    "config.interleave": ("InterleaveSettings", "ScheduleSettings"),
    "config.live": ("LiveSettings",),
    "config.recipe": ("Recipe", "load_recipe"),
    "config.translate": ("DecodingSettings",),
    "core.errors": ("InputError",),
    "interleaving.schedule": ("text_ratio",),
    "interleaving.sequence": (
        "Example",
        "Markers",
        "Speech",
        "TrainingSequence",
        "interleave",
        "prepare_speech",
    ),
    "lm.data.tokens": ("WordTokens",),
    "lm.model.vocabulary": ("Vocabulary", "extend_model", "extend_tokenizer"),
    "pipeline": ("run",),
    "translate.decode": ("PhaseDecoder",),
    "translate.live.translator": ("LiveTranslator",),
    "translate.translator": ("SpeechTranslation", "Translator"),
    "units.align": ("forced_align",),
    "units.codebook": ("Codebook",),
    "units.extractor": ("UnitExtractor",),
    "vocoder.base": ("Vocoder",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value  # the next access no longer comes here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
