"""A trimmed vocabulary writes the texts in use with the same tokens, and loads in plain transformers."""

from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
)

from unitweave.config.lm import SmallLm
from unitweave.core.errors import InputError
from unitweave.lm.model.small import new_llama
from unitweave.lm.model.trim import trim_model, trim_tokenizer

CORPUS = [
    "the quick brown fox jumps over the lazy dog", "the dogs and the foxes are jumping", "el perro duerme en la casa",
    "los perros duermen en las casas rojas", "ein hund schläft im haus", "naïve café über straße",
    "quickly brownish lazily", "日本語 をはなす",
] * 3  # fmt: skip
USED = [" the", " dog", " perro", " casa", " straße", " jumping"]
SPECIAL = ["<bos>", "<eos>", "<pad>", "<unk>", "<unused0>", "<unused1>"]


def llama3_like() -> PreTrainedTokenizerFast:
    """Byte-level BPE with ignore_merges and a template that opens with the begin token."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\s+|\p{N}+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    template = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def gemma_like() -> PreTrainedTokenizerFast:
    """BPE over characters with ▁ for a space and bytes for what it does not know."""
    byte_tokens = [f"<0x{i:02X}>" for i in range(256)]
    base = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    base.normalizer = normalizers.Replace(" ", "▁")
    base.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    base.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    base.train_from_iterator(
        [word for text in CORPUS for word in text.replace(" ", " ▁").split()],
        trainers.BpeTrainer(vocab_size=560, special_tokens=[*SPECIAL, *byte_tokens], show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=base, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def unigram() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False, seed_size=2000
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


@pytest.mark.parametrize("make", [llama3_like, gemma_like, unigram])
def test_texts_in_use_keep_their_tokens_and_others_can_still_be_written(make, tmp_path: Path) -> None:
    tokenizer = make()
    trimmed, kept = trim_tokenizer(tokenizer, USED)
    assert len(kept) == len(trimmed) < len(tokenizer)
    trimmed.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in USED:
        for special in (False, True):
            old, new = (t(text, add_special_tokens=special)["input_ids"] for t in (tokenizer, loaded))
            assert [kept[i] for i in new] == old, text
            assert loaded.decode(new, skip_special_tokens=True) == tokenizer.decode(old, skip_special_tokens=True)
    assert loaded.bos_token == "<bos>" and kept[loaded.bos_token_id] == tokenizer.bos_token_id
    assert "<unused0>" not in loaded.get_vocab()
    if make is not unigram:
        other = " quickly los foxes"
        assert loaded.decode(loaded(other, add_special_tokens=False)["input_ids"]) == other


def test_far_characters_are_spelt_in_bytes_unless_a_text_has_them() -> None:
    tokenizer = gemma_like()
    without, _ = trim_tokenizer(tokenizer, USED)
    assert "日" in tokenizer.get_vocab() and "日" not in without.get_vocab() and "q" in without.get_vocab()
    ids = without(" 日", add_special_tokens=False)["input_ids"]
    assert without.convert_ids_to_tokens(ids) == ["▁", "<0xE6>", "<0x97>", "<0xA5>"] and without.decode(ids) == " 日"
    with_it, kept = trim_tokenizer(tokenizer, [*USED, "日"])
    assert [kept[i] for i in with_it("日")["input_ids"]] == tokenizer("日")["input_ids"]


@pytest.mark.parametrize("kind", ["llama", "gemma"])
def test_a_trimmed_model_says_of_the_kept_tokens_what_it_said_before(kind: str, tmp_path: Path) -> None:
    tokenizer = llama3_like()
    if kind == "llama":
        model = new_llama(
            SmallLm(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64),
            len(tokenizer) + 8,
        )
        model.config.tie_word_embeddings = False
        model = type(model)(model.config)
    else:
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(
                vocab_size=len(tokenizer) + 8, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, head_dim=16, bos_token_id=0, eos_token_id=1,
                pad_token_id=2,
            )
        )  # fmt: skip
    model.eval()
    trimmed, kept = trim_tokenizer(tokenizer, USED)
    ids = tokenizer(" the dog", add_special_tokens=True)["input_ids"]
    before = model(input_ids=torch.tensor([ids])).logits.detach()
    trim_model(model, kept)
    trimmed.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    loaded.eval()
    new_ids = AutoTokenizer.from_pretrained(tmp_path)(" the dog")["input_ids"]
    after = loaded(input_ids=torch.tensor([new_ids])).logits.detach()
    assert loaded.config.vocab_size == after.shape[-1] == len(kept)
    assert loaded.config.bos_token_id == trimmed.bos_token_id
    torch.testing.assert_close(after, before[..., kept], atol=1e-5, rtol=1e-4)


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(InputError, match="WordLevel"):
        trim_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words), ["a"])
