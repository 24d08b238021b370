"""Tokens of running text: tokenizers of every kind give the ids that they give the whole text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from unitweave.core.natural import natural_pieces, normalized_pieces
from unitweave.core.scripts import join_words
from unitweave.lm.data.tokens import WordTokens, space_before

LINES = [
    "hola que tal estás hoy, María", "El perro duerme en la casa roja.", "the dog sleeps in the red house",
    "don't stop: it costs 1,234.50 euros", "我有三只猫。你好世界，今天天气很好", "สวัสดีครับ ฉันรักภาษาไทย", "😀 naïve café",
]  # fmt: skip


def _train(tokenizer: Tokenizer, kind: type, **more: object) -> PreTrainedTokenizerFast:
    tokenizer.train_from_iterator(LINES * 3, kind(show_progress=False, special_tokens=["<unk>", "<s>"], **more))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def byte_level(prefix: bool) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=prefix), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _train(bpe, trainers.BpeTrainer, vocab_size=400, initial_alphabet=alphabet)


def metaspace(scheme: str, model: str = "bpe") -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE(unk_token="<unk>") if model == "bpe" else models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    if model == "bpe":
        return _train(made, trainers.BpeTrainer, vocab_size=220)
    return _train(made, trainers.UnigramTrainer, vocab_size=160, unk_token="<unk>")


def llama2() -> PreTrainedTokenizerFast:
    """As tokenizer.json of Llama 2 has it: a normalizer that puts "▁" before every text, and no pre-tokenizer."""
    state = json.loads(metaspace("always").backend_tokenizer.to_str())
    made = Tokenizer.from_str(json.dumps(state | {"pre_tokenizer": None}))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(strip)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def gemma() -> PreTrainedTokenizerFast:
    """Spaces become "▁" and nothing is put before a text."""
    state = json.loads(metaspace("always").backend_tokenizer.to_str())
    made = Tokenizer.from_str(json.dumps(state | {"pre_tokenizer": None}))
    made.normalizer, made.decoder = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _train(made, trainers.WordPieceTrainer, vocab_size=200)


KINDS = {
    "byte-level": lambda: byte_level(False), "byte-level with a space": lambda: byte_level(True),
    "metaspace always": lambda: metaspace("always"), "metaspace first": lambda: metaspace("first"),
    "metaspace never": lambda: metaspace("never"), "unigram": lambda: metaspace("always", "unigram"),
    "llama 2": llama2, "gemma": gemma, "wordpiece": wordpiece,
}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, WordTokens]:
    return {name: WordTokens(make()) for name, make in KINDS.items()}


texts = st.lists(st.sampled_from([*" ".join(LINES).split(), "3.000", "–", "¿", "»", "e.g.", "世", "๓"]), max_size=9)


@pytest.mark.slow
@settings(deadline=None)
@given(texts.map(" ".join), st.sampled_from(sorted(KINDS)), st.booleans())
def test_words_have_the_ids_of_the_running_text_and_no_token_is_cut(
    tokenizers: dict[str, WordTokens], text: str, kind: str, natural: bool
) -> None:
    tokens = tokenizers[kind]
    pieces = [one.text for one in (natural_pieces(text, "es") if natural else normalized_pieces(text))]
    running = "".join(pieces)
    groups, bounds = tokens.of_pieces(pieces)
    given_text = tokens.prefix + running if running else ""
    expected = tokens.tokenizer(given_text, add_special_tokens=False)["input_ids"]
    assert [i for group in groups for i in group.tolist()] == expected == tokens.text(running).tolist()
    assert bounds[0] == 0 and bounds[-1] == len(pieces) and bounds == sorted(set(bounds))
    assert len(groups) == len(bounds) - 1 or not pieces
    words = tokens(join_words(text).split())
    assert [i for word in words for i in word.tolist()] == tokens.text(join_words(text)).tolist()


@pytest.mark.parametrize("kind", [kind for kind in sorted(KINDS) if kind != "wordpiece"])
def test_a_text_comes_back_as_it_was_with_single_spaces(tokenizers: dict[str, WordTokens], kind: str) -> None:
    tokens = tokenizers[kind]
    for line in LINES[:4]:
        ids = tokens.text(line).tolist()
        assert tokens.tokenizer.decode(ids).strip() == line, kind
        assert not any("▁▁" in str(token) for token in tokens.tokenizer.convert_ids_to_tokens(ids))
    groups, _ = tokens.of_pieces(["hola", " que", " tal"])
    assert [tokens.tokenizer.decode(group).strip() for group in groups] == ["hola", "que", "tal"]


def test_a_space_goes_before_a_text_only_where_the_tokenizer_has_none(tokenizers: dict[str, WordTokens]) -> None:
    spaced = {kind for kind, tokens in tokenizers.items() if space_before(tokens.tokenizer)}
    assert spaced == {"byte-level", "metaspace never", "gemma", "wordpiece"}


def test_characters_that_share_a_token_stay_together(tokenizers: dict[str, WordTokens]) -> None:
    tokens = tokenizers["byte-level"]
    pieces = [one.text for one in natural_pieces("你好世界。", "zh")]
    assert pieces == ["你", "好", "世", "界。"]
    groups, bounds = tokens.of_pieces(pieces)
    assert all(len(group) for group in groups)
    for group, first, last in zip(groups, bounds[:-1], bounds[1:], strict=True):
        assert tokens.tokenizer.decode(group).strip() == "".join(pieces[first:last])
