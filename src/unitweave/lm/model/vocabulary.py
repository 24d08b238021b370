"""A text LLM's vocabulary, extended by the units and the stage markers.

The new token ids are contiguous and follow the text tokens: units first, so that the units of a
constrained decode are one slice, then the markers, then the language tags. Embedding rows are padded
to a multiple of 64 and every one of them is initialized.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from unitweave.config.interleave import FROM_SPEECH, SPEECH_TO_SPEECH, Texts
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object, write_json
from unitweave.core.languages import language_code
from unitweave.interleaving.sequence import Markers

if TYPE_CHECKING:  # a model's record is read, and may be refused, before torch and transformers are imported
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE_NAME = "unitweave.json"
FORMAT = 1
ROW_MULTIPLE = 64
_MAX_SIZE = 1 << 22  # tokens; as in training/model_files.py
_MARKERS = ("source", "transcript", "translation", "target", "end", "mask")


@dataclass(frozen=True)
class Vocabulary:
    """Where everything is in the extended vocabulary.

    Attributes:
        text_size: Ids [0, text_size) are the text LLM's own tokens.
        unit_offset: Unit u is the token unit_offset + u.
        num_units: Size of the codebook.
        codebook: Fingerprint of the codebook that the units come from.
        markers: Stage marker -> token id.
        languages: Language code -> token id of its tag.
        begin: The tokenizer's begin-of-text token, None where it has none.
        deduplicate: Whether the model reads and writes units without repetitions.
        tasks: What the model was last trained on; files of the first versions do not tell, and mean s2st.
        directions: Pairs of source and target language that it was trained on; files of the first versions do not
            tell, and mean every language into English.
        utterance_seconds: How long the source recordings are that it was trained on; None where nobody knows.
        source_score: How well transcripts fit the source recordings that it was trained on, by the encoder: nineteen of
            twenty fit better (see `utterance_score`). None where nobody knows.
        texts: Whether it writes natural or normalized text.
        frame_rate: Units a second, repetitions counted.
        target_prefixes: Whether it was trained on beginnings of translations with exactly their units, and so ends its
            speech where a text breaks off.
    """

    text_size: int
    unit_offset: int
    num_units: int
    codebook: str
    markers: dict[str, int]
    languages: dict[str, int]
    begin: int | None = None
    deduplicate: bool = False
    tasks: list[str] = field(default_factory=lambda: ["s2st"])
    directions: list[tuple[str, str]] = field(default_factory=list)
    utterance_seconds: float | None = None
    source_score: float | None = None
    texts: Texts = "normalized"
    frame_rate: float = 50.0
    target_prefixes: bool = False

    def __post_init__(self) -> None:
        directions = [(source, target) for source, target in self.directions]  # JSON has lists
        if not directions and "en" in self.languages:
            directions = [(code, "en") for code in self.languages if code != "en"]
        object.__setattr__(self, "directions", directions)

    @property
    def task(self) -> str | None:
        """What the model is used for, of the tasks that it was trained on; None where none begins with speech."""
        return next((task for task in FROM_SPEECH if task in self.tasks), None)

    @property
    def has_texts(self) -> bool:
        """Whether the model writes a transcript, and unless it only recognizes, a translation."""
        return self.task in ("s2st", "s2tt", "asr")

    @property
    def sources(self) -> list[str]:
        """The languages that the model translates from, sorted."""
        return sorted({source for source, _ in self.directions})

    @property
    def targets(self) -> list[str]:
        """The languages that the model translates into, sorted."""
        return self.targets_from(None)

    def language_code(self, name: str | None) -> str | None:
        """The model's code of a language that is called "ES", "spa", "es-MX" or "Spanish"; None for no name."""
        return (name if name in self.languages else language_code(name)) if name else None

    def targets_from(self, source: str | None) -> list[str]:
        """The languages that the model translates into from `source` (None: from any), sorted."""
        return sorted({target for language, target in self.directions if source in (None, language)})

    def target_code(self, source: str | None, target: str | None) -> str | None:
        """The language to translate into; None where the source language, as the model identifies it, decides.

        Args:
            source: Code of the source language; None leaves it to the model.
            target: Code of the language to translate into, where it is known.

        Raises:
            InputError: A language is not one of the model's, or a choice is missing.
        """
        for name, code, choices in (("language", source, self.sources), ("target_language", target, self.targets)):
            if code is not None and code not in (choices or self.languages):
                raise InputError(
                    f"{name}: must be one of {', '.join(choices or sorted(self.languages))} (got {code!r})"
                )
        if target is not None or self.task == "asr":
            return target
        ambiguous = [code for code in ([source] if source else self.sources) if len(self.targets_from(code)) > 1]
        if ambiguous:
            targets = ", ".join(self.targets_from(ambiguous[0]))
            raise InputError(f"target_language: from {ambiguous[0]} this model translates into {targets}; choose one")
        into = self.targets_from(source)
        return into[0] if len(into) == 1 else None

    @property
    def has_speech(self) -> bool:
        """Whether the model goes on to target units, with or without texts in between."""
        return self.task in SPEECH_TO_SPEECH

    @property
    def size(self) -> int:
        """Number of tokens, padding rows not counted."""
        return 1 + max(*self.markers.values(), *self.languages.values(), self.unit_offset + self.num_units - 1)

    @property
    def sequence_markers(self) -> Markers:
        """The markers as the interleaving functions take them."""
        return Markers(**self.markers, begin=self.begin)

    def save(self, folder: Path) -> None:
        """Write unitweave.json into a model folder."""
        write_json(Path(folder) / FILE_NAME, {"format": FORMAT} | asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Vocabulary":
        """Read a model folder's unitweave.json.

        Raises:
            InputError: There is none, or it is damaged or of another version.
        """
        path = Path(folder) / FILE_NAME
        if not path.exists():
            raise InputError(f"{folder}: not a language model that unitweave trained (no {FILE_NAME})")
        content = read_json_object(path)
        if content.pop("format", None) != FORMAT:
            raise InputError(f"{path}: written by another version of unitweave; train the model again with this one")
        try:
            vocabulary = cls(**content)
            ids = [vocabulary.text_size, vocabulary.unit_offset, vocabulary.num_units, *vocabulary.languages.values()]
            ids += [*vocabulary.markers.values(), *([] if vocabulary.begin is None else [vocabulary.begin])]
            complete = vocabulary.markers.keys() == set(_MARKERS) and isinstance(vocabulary.tasks, list)
            complete = complete and isinstance(vocabulary.frame_rate, int | float) and vocabulary.frame_rate > 0
            complete = complete and all(type(i) is int and i >= 0 for i in ids) and vocabulary.num_units > 0
            complete = complete and vocabulary.text_size <= vocabulary.unit_offset and vocabulary.size <= _MAX_SIZE
            complete = complete and (vocabulary.begin or 0) < vocabulary.size
            complete = complete and vocabulary.texts in get_args(Texts)
            complete = complete and {*vocabulary.sources, *vocabulary.targets} <= vocabulary.languages.keys()
        except (TypeError, ValueError, AttributeError):
            complete = False
        if not complete:
            raise InputError(f"{path}: damaged; copy the model folder again, or train it again")
        return vocabulary


def extend_tokenizer(
    tokenizer: "PreTrainedTokenizerBase",
    num_units: int,
    languages: Sequence[str],
    codebook: str,
    deduplicate: bool = False,
) -> Vocabulary:
    """Add units, markers and language tags to a tokenizer, in place.

    Returns:
        Where they are.

    Raises:
        InputError: The tokenizer already has one of them, or gives them no contiguous ids.
    """
    from tokenizers import AddedToken

    text_size = len(tokenizer)
    names = [f"<|unit_{u}|>" for u in range(num_units)]
    names += [f"<|{marker}|>" for marker in _MARKERS] + [f"<|{language}|>" for language in languages]
    taken = set(names) & tokenizer.get_vocab().keys()
    if taken:
        raise InputError(f"the tokenizer already has the token {min(taken)}; start from a text-only language model")
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids(names)
    if ids != list(range(text_size, text_size + len(names))):
        raise InputError("the tokenizer gave the new tokens no contiguous ids: its vocabulary has gaps at the end")
    rest = ids[num_units:]
    return Vocabulary(
        text_size=text_size,
        unit_offset=text_size,
        num_units=num_units,
        codebook=codebook,
        markers=dict(zip(_MARKERS, rest, strict=False)),
        languages=dict(zip(languages, rest[len(_MARKERS) :], strict=True)),
        begin=tokenizer.bos_token_id,
        deduplicate=deduplicate,
    )


def extend_model(
    model: "PreTrainedModel", vocabulary: Vocabulary, seed: int, unit_text: Sequence[np.ndarray] | None = None
) -> None:
    """Grow the model's embeddings (and output layer, where untied) for the new tokens, in place.

    Every row from `text_size` on, also unused rows that the checkpoint came with and padding, becomes the mean of the
    text rows plus a little noise (a tenth of their standard deviation), so that no new token starts out more likely
    than a text token (Hewitt 2021).

    Args:
        model: The text LLM.
        vocabulary: Its extended vocabulary.
        seed: Of the noise.
        unit_text: For each unit the text tokens of the words it occurs in, int [count]; the unit's row then starts at
            the mean of those tokens' rows instead.
    """
    import torch

    rows = -(-vocabulary.size // ROW_MULTIPLE) * ROW_MULTIPLE
    with torch.no_grad():
        model.resize_token_embeddings(max(rows, model.get_input_embeddings().num_embeddings), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    tables = {id(t): t for t in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    with torch.no_grad():
        for table in tables.values():
            text = table[: vocabulary.text_size].float()
            new = table.shape[0] - vocabulary.text_size
            noise = torch.randn(new, table.shape[1], generator=generator) * (text.std(dim=0) / 10).cpu()
            table[vocabulary.text_size :] = (text.mean(dim=0) + noise.to(table.device)).to(table.dtype)
            for unit, tokens in enumerate(unit_text or []):
                if len(tokens):
                    mean = text[torch.as_tensor(tokens)].mean(dim=0)
                    table[vocabulary.unit_offset + unit] = (mean + noise[unit].to(table.device)).to(table.dtype)
