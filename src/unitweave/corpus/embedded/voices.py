"""The speakers of synthesized corpora: who speaks which language, and who is kept for dev and test.

Names say what to expect: es_pico_03 is Pico in Spanish, es_espeak_john is eSpeak NG with its variant
"john". Pico is the clearer engine and has one voice per language; pitch, speed and vocal tract make
speakers of it. Of eSpeak's hundred variants these are among those that an English recognizer
(moonshine tiny) understands best when they speak English: 20 to 30 % of words wrong where Pico has
11 to 19, and up to 60 % when eSpeak is hurried, so it speaks at about its own speed and Pico faster.
"""

from unitweave.core.errors import InputError
from unitweave.corpus.embedded.engines import Voice

# The one voice of a language that every translation is spoken in is a little faster than its own pace, for shorter
# sequences; at 115 percent the recognizer of the scores mishears more of it.
_TARGET_RATE = 105

_LANGUAGES = {  # language: Pico's voice, eSpeak's voice
    "es": ("es-ES", "es-419"),  # eSpeak's Latin American Spanish is clearer than its "es"
    "fr": ("fr-FR", "fr"),
    "de": ("de-DE", "de"),
    "it": ("it-IT", "it"),
    "en": ("en-US", "en-us"),
}

_PICO = {  # number: pitch, rate, tract in percent of the voice as it is
    "01": (100, 120, 100),
    "02": (86, 118, 104),
    "03": (114, 122, 97),
    "04": (126, 118, 92),
    "05": (138, 120, 88),
    "06": (82, 116, 109),
    "07": (95, 125, 95),
    "08": (108, 116, 106),
}
_PICO_UNSEEN = {
    "09": (120, 120, 94),
    "10": (91, 118, 107),
}

_ESPEAK = {  # variant: pitch, rate
    "f2": (96, 104),
    "f3": (100, 102),
    "m2": (100, 106),
    "m6": (104, 102),
    "adam": (94, 104),
    "john": (100, 100),
    "michel": (106, 104),
}
_ESPEAK_UNSEEN = {
    "f5": (102, 102),
    "max": (98, 104),
}


def languages() -> list[str]:
    """Languages that have speakers."""
    return list(_LANGUAGES)


def target_voice(language: str) -> Voice:
    """The voice that every translation into a language is spoken in. Raises InputError when it has none."""
    _check(language)
    return Voice(f"{language}_pico", "pico", _LANGUAGES[language][0], rate=_TARGET_RATE)


def speakers(language: str, unseen: bool = False) -> list[Voice]:
    """The training speakers of a source language, or those that only dev and test have.

    Raises InputError when the language has none.
    """
    _check(language)
    pico, espeak = _LANGUAGES[language]
    made = [
        Voice(f"{language}_pico_{number}", "pico", pico, *settings)
        for number, settings in (_PICO_UNSEEN if unseen else _PICO).items()
    ]
    made += [
        Voice(f"{language}_espeak_{variant}", "espeak", f"{espeak}+{variant}", *settings)
        for variant, settings in (_ESPEAK_UNSEEN if unseen else _ESPEAK).items()
    ]
    return made


def _check(language: str) -> None:
    if language not in _LANGUAGES:
        raise InputError(f"no speakers for the language {language!r}; there are some for {', '.join(_LANGUAGES)}")
