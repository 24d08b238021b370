"""Chunked cross-entropy, forward passes of a token budget, and the numbers of the log."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
)

from helpers.streams import WEIGHTS, interleaved, speech_source
from unitweave.config.lm import LoraSettings, SmallLm
from unitweave.core.errors import InputError
from unitweave.lm.data.packing import IGNORED, buckets, pack, split_to_budget
from unitweave.lm.data.stream import PackedDataset
from unitweave.lm.model.small import new_llama
from unitweave.lm.train import loss as loss_module
from unitweave.lm.train.attention import FLASH_INPUTS
from unitweave.lm.train.logs import training_flops
from unitweave.lm.train.loss import chunked_loss, plain_loss
from unitweave.lm.train.packed import PackedTraining, check_logits


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunked_loss_and_gradients_are_the_plain_ones(
    bias: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "_CHUNK_ELEMENTS", {"cpu": 64 * 50})  # chunks of 64 tokens
    head = torch.nn.Linear(16, 50, bias=bias)
    hidden = torch.randn(300, 16, requires_grad=True)
    labels = torch.randint(0, 50, (300,))
    labels[::7] = IGNORED
    weights = torch.rand(300) * (labels != IGNORED)
    results = []
    for function in (plain_loss, chunked_loss):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            total, losses = function(head, hidden, labels, weights)
        (total / 7).backward()
        results.append((total.detach(), losses, hidden.grad, *(p.grad for p in head.parameters())))
        hidden.grad = None
        head.zero_grad()
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked.float(), plain.float(), **tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_the_chunked_loss_of_lora_is_the_plain_one_without_a_copy_of_the_weight(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = pytest.importorskip("peft.tuners.trainable_tokens.layer")
    from unitweave.lm.model.lora import add_lora

    monkeypatch.setattr(loss_module, "_CHUNK_ELEMENTS", {"cpu": 64 * 210})
    shape = SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = new_llama(shape, 210)
    model.config.tie_word_embeddings = tied
    model.tie_weights() if tied else setattr(model.lm_head, "weight", torch.nn.Parameter(torch.randn(210, 32)))
    wrapped = add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=False)
    head = wrapped.get_output_embeddings()
    hidden, labels = torch.randn(300, 32, requires_grad=True), torch.randint(0, 210, (300,))
    weights = torch.rand(300)
    trained = [p for p in head.parameters() if p.requires_grad]
    results = []
    for function in (plain_loss, chunked_loss):
        if function is chunked_loss:
            monkeypatch.setattr(layers.TrainableTokensLayer, "get_merged_weights", lambda *_: pytest.fail("a copy"))
        total, losses = function(head, hidden, labels, weights)
        total.backward()
        results.append((total.detach(), losses, hidden.grad, *(p.grad for p in trained)))
        hidden.grad = None
        for parameter in trained:
            parameter.grad = None
    assert len(trained) == 1 and trained[0].shape == (30, 32)
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_embeddings_of_lora_are_pefts_own_without_a_copy_of_the_table(
    scaled: bool, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = pytest.importorskip("peft.tuners.trainable_tokens.layer")
    from unitweave.lm.model.lora import add_lora

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    if scaled:  # Gemma multiplies its embeddings
        config = Gemma3TextConfig(vocab_size=210, num_key_value_heads=1, head_dim=16, pad_token_id=0, **small)
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = new_llama(SmallLm(**small), 210)
    add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=bf16)
    layer = model.get_input_embeddings().token_adapter
    trained = layer.trainable_tokens_delta["default"]
    trained.data += 0.1
    ids, gradient = torch.randint(0, 210, (3, 50)), torch.randn(3, 50, 32)
    theirs = layers.TrainableTokensLayer.forward_adapters(layer, ids, ["default"])
    (theirs.float() * gradient).sum().backward()
    expected, trained.grad = trained.grad, None
    monkeypatch.setattr(layers.TrainableTokensLayer, "get_merged_weights", lambda *_: pytest.fail("a copy"))
    ours = model.get_input_embeddings()(ids)
    (ours.float() * gradient).sum().backward()
    assert torch.equal(ours, theirs) and ours.dtype == (torch.bfloat16 if bf16 else torch.float32)
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if bf16 else {"rtol": 1e-5, "atol": 1e-6}  # theirs is summed in bfloat16
    torch.testing.assert_close(trained.grad, expected, **tolerance)


def test_under_autocast_lora_keeps_no_float32_copies_of_what_comes_into_its_layers() -> None:
    pytest.importorskip("peft")
    from unitweave.lm.model.lora import add_lora

    shape = SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = new_llama(shape, 210)
    wrapped = add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=True)
    inputs = {"input_ids": torch.arange(170, 200)[None], "position_ids": torch.arange(30)[None]}
    labels, weights = torch.arange(170, 200), torch.ones(30)
    into: list[torch.dtype] = []
    for name, module in wrapped.named_modules():
        if name.endswith("lora_A.default"):
            module.register_forward_pre_hook(lambda _, given: into.append(given[0].dtype))
    losses = []
    with PackedTraining(model, "chunked") as packed:
        into.clear()
        for autocast in (True, False):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                losses.append(float(model(labels=labels, weights=weights, **inputs)[0].detach()))
        assert set(into[: len(into) // 2]) == {torch.bfloat16} and set(into[len(into) // 2 :]) == {torch.float32}
        with packed.suspended():
            assert torch.isfinite(model(input_ids=inputs["input_ids"]).logits).all()
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize("bf16", [False, True])
def test_the_updates_of_lora_are_added_in_float32(bf16: bool) -> None:
    pytest.importorskip("peft")
    from unitweave.lm.model.lora import add_lora, merge_lora

    shape = SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = new_llama(shape, 210)
    wrapped = add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=bf16)
    layer = model.model.layers[0].mlp.up_proj
    layer.lora_B["default"].weight.data.normal_()
    dtype = layer.base_layer.weight.dtype
    update = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = (layer.base_layer.weight.float() + update).to(dtype)
    assert torch.equal(merge_lora(wrapped).model.layers[0].mlp.up_proj.weight, expected)
    assert dtype == (torch.bfloat16 if bf16 else torch.float32)


@pytest.mark.parametrize("tied", [False, True])
def test_a_checkpoint_of_lora_has_what_is_trained_and_no_tables(tied: bool, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from unitweave.lm.model.lora import add_lora

    def wrapped(shift: float) -> Any:
        torch.manual_seed(0)
        model = new_llama(
            SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64), 180
        )
        model.config.tie_word_embeddings = tied
        model.tie_weights() if tied else setattr(model.lm_head, "weight", torch.nn.Parameter(torch.randn(180, 32)))
        model.name_or_path = str(tmp_path / "base")  # of a smaller vocabulary, which peft looks at
        model.save_pretrained(tmp_path / "base")
        model.resize_token_embeddings(210, mean_resizing=False)
        found = add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=False)
        for parameter in found.parameters():
            if parameter.requires_grad:
                parameter.data += shift
        return found.eval()

    first, second = wrapped(0.1), wrapped(0.0)
    first.save_pretrained(tmp_path / "checkpoint")
    shapes = [tuple(value.shape) for value in load_file(tmp_path / "checkpoint/adapter_model.safetensors").values()]
    assert (30, 32) in shapes and (210, 32) not in shapes
    second.load_adapter(tmp_path / "checkpoint", "default", is_trainable=True)
    ids = torch.arange(170, 200)[None]
    assert torch.equal(second(ids).logits, first(ids).logits)


@pytest.mark.parametrize("tied", [False, True])
def test_lora_decodes_amid_training_without_copies_of_its_tables(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = pytest.importorskip("peft.tuners.trainable_tokens.layer")
    from unitweave.lm.model.lora import add_lora, merge_lora

    shape = SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = new_llama(shape, 210)
    model.config.tie_word_embeddings = tied
    model.tie_weights() if tied else setattr(model.lm_head, "weight", torch.nn.Parameter(torch.randn(210, 32)))
    wrapped = add_lora(model, SimpleNamespace(text_size=180), LoraSettings(rank=2), bf16=False)
    for name, parameter in wrapped.named_parameters():
        if "trainable_tokens_delta" in name:
            parameter.data += 0.1
    kept = {name: value.clone() for name, value in wrapped.state_dict().items()}
    ids = torch.arange(175, 200)[None]
    before = model.eval()(ids).logits
    with PackedTraining(model, "chunked") as packed, packed.suspended(), monkeypatch.context() as patch:
        patch.setattr(layers.TrainableTokensLayer, "get_merged_weights", lambda *_: pytest.fail("a copy"))
        assert torch.equal(model.eval()(ids).logits, before)
    assert torch.equal(model.eval()(ids).logits, before)
    assert all(torch.equal(value, kept[name]) for name, value in wrapped.state_dict().items())
    table = model.get_input_embeddings().token_adapter.base_layer.weight.data_ptr()
    merged = merge_lora(wrapped)
    assert merged.get_input_embeddings().weight.data_ptr() == table, "nor does merging copy it"
    assert (merged.get_output_embeddings().weight.data_ptr() == table) == tied
    torch.testing.assert_close(merged.eval()(ids).logits, before)


@pytest.mark.parametrize("cross_entropy", ["chunked", "plain"])
def test_a_model_in_training_returns_its_loss_and_is_itself_again_afterwards(cross_entropy: str) -> None:
    model = new_llama(SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64), 210)
    batch = pack(interleaved(20, 40), WEIGHTS)
    inputs = {
        k: v for k, v in batch.items() if k not in ("segments", "num_tokens", "sum_squared_lengths", *FLASH_INPUTS)
    }
    ids = torch.arange(9)[None]
    before = model(input_ids=ids).logits
    with PackedTraining(model, cross_entropy) as packed:
        total, losses = model(**inputs)
        assert float(total.detach()) == pytest.approx(float((losses * batch["weights"]).sum()), rel=1e-5)
        with pytest.raises(KeyboardInterrupt), packed.suspended():
            assert torch.equal(model.eval()(input_ids=ids).logits, before)
            raise KeyboardInterrupt
        assert torch.equal(model(**inputs)[1], losses) and model.training
    assert torch.equal(model(input_ids=ids).logits, before) and model.config._attn_implementation == "sdpa"


def test_a_model_that_changes_its_logits_needs_the_plain_loss() -> None:
    """Gemma 2 caps its logits softly; chunked, that would be left out."""
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8,
        )
    )  # fmt: skip
    with pytest.raises(InputError, match="cross_entropy: plain"):
        PackedTraining(model, "chunked")
    PackedTraining(model, "plain")
    check_logits(LlamaConfig())
    for config in (Gemma2Config(), CohereConfig(), GraniteConfig(logits_scaling=8.0)):  # known without a model
        with pytest.raises(InputError, match="cross_entropy: plain"):
            check_logits(config)


def test_forward_passes_keep_to_the_budget_and_are_equally_many_everywhere() -> None:
    sequences = interleaved(*range(20, 120, 5))
    parts = split_to_budget(sequences, 2, 250)
    assert sorted(i for part in parts for piece in part for i in piece) == list(range(len(sequences)))
    assert len({len(part) for part in parts}) == 1
    assert max(sum(len(sequences[i].ids) for i in piece) for part in parts for piece in part) <= 250
    assert [len(part) for part in split_to_budget(interleaved(90, 10), 1, 50)] == [2], (
        "a long sequence is a pass of its own"
    )


def test_one_sequence_above_the_budget_makes_no_more_passes_than_the_others_need() -> None:
    sequences = interleaved(300, *range(20, 60, 2))
    ((*passes,),) = split_to_budget(sequences, 1, 250)
    tokens = [[len(sequences[i].ids) for i in piece] for piece in passes]
    assert sorted(n for piece in tokens for n in piece) == sorted(len(s.ids) for s in sequences)
    assert all(sum(piece) <= 250 or piece == [300] for piece in tokens)
    assert len(passes) <= 6  # 1,080 tokens are five passes at least


def test_a_step_in_several_passes_has_the_same_sequences_and_weight() -> None:
    whole, cut = (
        PackedDataset(speech_source(), 3, WEIGHTS, max_tokens_per_forward=tokens)[1]["passes"] for tokens in (None, 99)
    )
    assert len(whole) == 1 < len(cut)
    assert {batch["step_weight"] for batch in cut} == {whole[0]["step_weight"]}
    assert sum(batch["num_tokens"] for batch in cut) == whole[0]["num_tokens"]


def test_buckets_are_cut_where_that_saves_most_attention() -> None:
    def work(ends: list[int], lengths: list[int]) -> int:
        starts = [0, *ends[:-1]]
        return sum((b - a) * (-(-lengths[b - 1] // 32) * 32) ** 2 + 20_000 for a, b in zip(starts, ends, strict=True))

    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = sorted(rng.integers(10, 500, size=int(rng.integers(1, 9))).tolist())
        n = len(lengths)
        every = [[*(i + 1 for i in range(n - 1) if cuts >> i & 1), n] for cuts in range(2 ** (n - 1))]
        assert work(buckets(lengths), lengths) == min(work(ends, lengths) for ends in every)


def test_training_flops_are_six_per_weight_and_half_the_square_of_attention() -> None:
    model = new_llama(SmallLm(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64), 100)
    per_token, per_square = training_flops(model)
    assert per_token == 6 * (3 * (4 * 32 * 32 + 3 * 32 * 64) + 32 * 100)
    assert per_square == 3 * 3 * 2 * 32  # layers, three passes, two products of half the pairs, hidden size
