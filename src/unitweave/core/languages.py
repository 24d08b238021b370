"""Names of languages, for pages and model cards."""

from collections.abc import Iterable
from functools import cache


@cache
def language_name(code: str) -> str:
    """The English name of a language, such as "Spanish" for "es"; an unknown code stays as it is."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    name = LANGUAGES.get(code.lower().replace("_", "-").split("-")[0])
    return name.title() if name else code


def language_names(codes: Iterable[str]) -> str:
    """The names of several languages in a phrase: "French", "English and Spanish", "English, French and Spanish"."""
    names = [language_name(code) for code in codes]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
