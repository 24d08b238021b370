"""Which tokens begin a word, also in scripts without spaces, and how live texts are joined."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from helpers.live import SpacelessModel, replay, signal
from unitweave.config.live import LiveSettings
from unitweave.core.scripts import cluster_starts
from unitweave.translate.live.events import CommittedText, UtteranceEnd
from unitweave.translate.live.recording import LiveRecording
from unitweave.translate.word_starts import _begins_cluster, word_starts

TEXTS = [
    "今天我们去看电影，好吗？",
    "the dog sleeps today",
    "我用 Python 写程序",
    "วันนี้เราไปดูหนัง",
    "오늘 우리는 영화를 봅니다",
]


def byte_level(size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("size", [256, 300, 400])
@pytest.mark.parametrize("text", TEXTS)
def test_groups_that_begin_at_word_starts_are_whole_characters_and_add_up_to_the_text(size: int, text: str) -> None:
    tokenizer = byte_level(size)
    spaced, starts = word_starts(tokenizer, len(tokenizer))
    groups: list[list[int]] = []
    for token in tokenizer(text)["input_ids"]:
        if starts[token] or not groups:
            groups.append([])
        groups[-1].append(token)
    words = [tokenizer.decode(group) for group in groups]
    assert "".join(words) == text and "\ufffd" not in "".join(words)
    ends = np.cumsum([len(word) for word in words])[:-1].tolist()
    spaces = [i for i, character in enumerate(text) if character == " "]
    if "ว" not in text:  # Thai marks begin with the same byte as its letters
        assert set(ends) <= set(cluster_starts(text)) | set(spaces)
    assert set(spaces) <= set(ends)
    assert [bool(spaced[group[0]]) for group in groups] == [word.startswith(" ") for word in words]
    if size == 256 and "天" in text:
        assert "天" in words  # a word of its own


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("我", True),
        ("か", True),
        ("ก", True),
        ("ั", False),
        ("，", False),
        ("a", False),
        ("é", False),
        ("한", False),
        ("अ", False),
    ],
)
def test_a_letter_of_a_script_without_spaces_begins_a_word(text: str, begins: bool) -> None:
    whole = text.encode()
    assert _begins_cluster(whole) == begins
    if begins:
        assert _begins_cluster(whole[:1]) and _begins_cluster(whole[:2])  # so does what can become one
    assert not _begins_cluster(whole[1:] or b"a")


def test_live_texts_in_a_script_without_spaces_have_none(tmp_path) -> None:
    model = SpacelessModel()
    with LiveRecording(tmp_path / "talk", speech=False) as files:
        events = replay(signal(0.3, 4.0, 1.0), 1000, model, LiveSettings(policy="agreement", text_only=True))
        for event in events:
            files.write(event)
    pieces = [event.text for event in events if isinstance(event, CommittedText)]
    end = next(event for event in events if isinstance(event, UtteranceEnd))
    assert len(pieces) > 3 and "".join(pieces) == end.translation == model.text[: len(end.translation)]
    lines = (tmp_path / "talk.srt").read_text().splitlines()
    assert "".join(line for line in lines if not line.isdecimal() and "-->" not in line) == end.translation
