"""The speakers of synthesized corpora: who speaks which language, and who is kept for dev and test.

Names say what to expect: es_pico_03 is Pico in Spanish, es_espeak_john is eSpeak NG with its variant
"john". Pico is the clearer engine and has one voice per language; pitch, speed and vocal tract make
speakers of it. Of eSpeak's hundred variants these are among those that an English recognizer
(moonshine tiny) understands best when they speak English: 20 to 30 % of words wrong where Pico has
11 to 19, and up to 60 % when eSpeak is hurried, so it speaks at about its own speed and Pico faster.
Kokoro sounds like people and takes about as long as its speech lasts; it speaks where a recipe says so.
"""

from unitweave.config.corpus import SynthesisSettings
from unitweave.core.errors import InputError
from unitweave.corpus import kokoro
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


_KOKORO_TRACTS: tuple[int, ...] = (100, 94, 107)  # each of its voices is three speakers
_KOKORO_UNSEEN_TRACTS: tuple[int, ...] = (90, 112)  # where a language has a single voice


def languages() -> list[str]:
    """Languages that have speakers of Pico and eSpeak."""
    return list(_LANGUAGES)


def check_speakers(settings: SynthesisSettings) -> None:
    """Raise InputError where nobody speaks a source language, or translations into a target language."""
    for source, target in settings.pairs:
        speakers(source, settings)
        target_voice(target, settings)


def target_voice(language: str, settings: SynthesisSettings) -> Voice:
    """The voice that every translation into a language is spoken in. Raises InputError when it has none."""
    if settings.target_engine == "kokoro":
        folder = str(settings.kokoro)
        return Voice(
            f"{language}_kokoro", "kokoro", kokoro.engine_name(folder, language, settings.target_voice), model=folder
        )
    if language not in _LANGUAGES:
        raise InputError(
            f"no voice for translations into {language!r}; Pico supports {', '.join(_LANGUAGES)}, and "
            f"{settings.key}.target_engine kokoro {', '.join(kokoro.LANGUAGES)}"
        )
    return Voice(f"{language}_pico", "pico", settings.target_voice or _LANGUAGES[language][0], rate=_TARGET_RATE)


def speakers(language: str, settings: SynthesisSettings, unseen: bool = False) -> list[Voice]:
    """The training speakers of a source language, or those that only dev and test have.

    Args:
        language: ISO 639-1 code.
        settings: Which engines speak, and how many of their speakers.
        unseen: Those of dev and test, which are the same few for few speakers and many.

    Raises:
        InputError: The language has none, or Kokoro has no voice of a name.
    """
    tables = {"pico": _pico, "espeak": _espeak, "kokoro": _kokoro}
    groups = [tables[engine](language, settings, unseen) for engine in settings.engines]
    made = [voice for few, _ in groups for voice in few]
    if settings.speakers == "many":
        made += [voice for _, more in groups for voice in more]
    if not made:
        engines, supported = ", ".join(settings.engines), list(_LANGUAGES)
        if "kokoro" in settings.engines:
            more = kokoro.LANGUAGES
            supported = list(more) if settings.engines == ["kokoro"] else sorted({*supported, *more})
        raise InputError(f"{engines}: no speakers for the language {language!r}; choose from: {', '.join(supported)}")
    return made


_Speakers = tuple[list[Voice], list[Voice]]  # those that are easily understood, and more


def _pico(language: str, settings: SynthesisSettings, unseen: bool) -> _Speakers:
    if language not in _LANGUAGES:
        return [], []
    few, more = (
        [Voice(f"{language}_pico_{n}", "pico", _LANGUAGES[language][0], *how) for n, how in table.items()]
        for table in ((_PICO_UNSEEN, {}) if unseen else (_PICO, _MORE_PICO))
    )
    return few, more


def _espeak(language: str, settings: SynthesisSettings, unseen: bool) -> _Speakers:
    if language not in _LANGUAGES:
        return [], []
    name = _LANGUAGES[language][1]
    few = [
        Voice(f"{language}_espeak_{variant}", "espeak", f"{name}+{variant}", *how)
        for variant, how in (_ESPEAK_UNSEEN if unseen else _ESPEAK).items()
    ]
    accents = (name, _MORE_ACCENTS.get(language, name))
    more = [
        Voice(f"{language}_espeak_{variant}", "espeak", f"{accents[i % 2]}+{variant}")
        for i, variant in enumerate(() if unseen else _MORE_ESPEAK)
    ]
    return few, more


def _kokoro(language: str, settings: SynthesisSettings, unseen: bool) -> _Speakers:
    """Every fourth voice of a language, at least one of two, is kept for dev and test."""
    folder = str(settings.kokoro)
    names = kokoro.list_voices(folder, language)
    if unknown := [name for name in settings.kokoro_voices if name not in kokoro.voices(folder)]:
        raise InputError(f"{settings.key}.kokoro_voices: {folder} has no voice {unknown[0]!r}")
    names = [name for name in names if name in settings.kokoro_voices or not settings.kokoro_voices]
    kept = (names[3::4] or names[-1:]) if len(names) > 1 else []
    if not unseen:
        chosen, tracts = [name for name in names if name not in kept], _KOKORO_TRACTS
    else:
        chosen, tracts = (kept, _KOKORO_TRACTS[:1]) if kept else (names, _KOKORO_UNSEEN_TRACTS)
    few = [
        Voice(
            f"{language}_kokoro_{name}" + (f"_{tract}" if tract != 100 else ""), "kokoro",
            kokoro.engine_name(folder, language, name), tract=tract, model=folder,
        )
        for tract in tracts for name in chosen
    ]  # fmt: skip
    return few, []
