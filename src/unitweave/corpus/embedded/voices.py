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

# `speakers: many` adds these: harder to understand, but no two alike. Robots, whispers and the like are left out.
_MORE_PICO = {
    "11": (88, 112, 112),
    "12": (104, 128, 90),
    "13": (132, 112, 90),
    "14": (78, 124, 106),
    "15": (146, 124, 86),
    "16": (112, 108, 100),
    "17": (96, 132, 103),
    "18": (84, 110, 116),
    "19": (122, 130, 98),
}
_MORE_ESPEAK = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Hugo", "Jacky", "Lee", "Mario",
    "Michael", "Mike", "anika", "antonio", "aunty", "belinda", "benjamin", "boris", "caleb", "david", "edward",
    "f1", "f4", "ian", "iven", "linda", "m1", "m3", "m4", "m7", "marcelo", "miguel", "norbert", "pablo",
)  # fmt: skip
_MORE_ACCENTS = {"es": "es"}  # eSpeak's other voice of a language, for every second of these speakers


def languages() -> list[str]:
    """Languages that have speakers."""
    return list(_LANGUAGES)


def target_voice(language: str) -> Voice:
    """The voice that every translation into a language is spoken in. Raises InputError when it has none."""
    _check(language)
    return Voice(f"{language}_pico", "pico", _LANGUAGES[language][0], rate=_TARGET_RATE)


def speakers(language: str, unseen: bool = False, many: bool = False) -> list[Voice]:
    """The training speakers of a source language, or those that only dev and test have.

    Args:
        language: ISO 639-1 code.
        unseen: Those of dev and test, which are the same few for all corpora.
        many: With the speakers that are less easily understood.

    Raises:
        InputError: The language has none.
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
    if many and not unseen:
        made += [Voice(f"{language}_pico_{n}", "pico", pico, *settings) for n, settings in _MORE_PICO.items()]
        accents = (espeak, _MORE_ACCENTS.get(language, espeak))
        made += [
            Voice(f"{language}_espeak_{variant}", "espeak", f"{accents[i % 2]}+{variant}")
            for i, variant in enumerate(_MORE_ESPEAK)
        ]
    return made


def _check(language: str) -> None:
    if language not in _LANGUAGES:
        raise InputError(f"no speakers for the language {language!r}; choose from: {', '.join(_LANGUAGES)}")
