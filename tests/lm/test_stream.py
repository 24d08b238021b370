"""The batch stream is a pure function of (seed, data, step), and packing changes no number."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from helpers.streams import WEIGHTS, interleaved, speech_source
from unitweave.config.lm import SmallLm
from unitweave.lm.data.packing import IGNORED, pack, split_step, step_weight
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import PackedDataset
from unitweave.lm.model.small import new_llama
from unitweave.lm.train.attention import BUCKET_INPUTS, FLASH_INPUTS, PACKED, packed_attention


def sequences_of(batch: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
    """The sequences of a packed micro-batch, read back from its positions."""
    used = int(batch["num_tokens"])
    starts = [*(batch["position_ids"][0, :used] == 0).nonzero().flatten().tolist(), used]
    ids = batch["input_ids"][0].tolist()
    return [tuple(ids[a:b]) for a, b in itertools.pairwise(starts)]


def stream(processes: int, accumulation: int, steps: int = 6, workers: int = 0, first: int = 0) -> list[list[tuple]]:
    """The sequences of each step, whichever process and micro-batch they fall to, sorted within the step."""
    loaders = [
        iter(
            DataLoader(
                PackedDataset(speech_source(), steps, WEIGHTS, accumulation, rank, processes, first),
                batch_size=None,
                num_workers=workers,
            )
        )
        for rank in range(processes)
    ]
    found = []
    for _ in range(steps):
        batches = [b for _ in range(accumulation) for loader in loaders for b in next(loader)["passes"]]
        assert len({float(b["step_weight"]) for b in batches}) == 1
        assert sum(float(b["weights"][b["labels"] != IGNORED].sum()) for b in batches) == pytest.approx(
            float(batches[0]["step_weight"])
        )
        found.append(sorted(s for b in batches for s in sequences_of(b)))
    return found


def test_two_processes_accumulating_two_equal_one_process_accumulating_four() -> None:
    assert stream(processes=2, accumulation=2) == stream(processes=1, accumulation=4)


@pytest.mark.processes
def test_workers_that_read_ahead_change_no_sequence() -> None:
    assert stream(1, 2, workers=2) == stream(1, 2, workers=0)


def test_a_restarted_stream_goes_on_with_the_same_sequences() -> None:
    assert stream(1, 2, steps=3, first=3) == stream(1, 2)[3:]


def test_every_step_has_its_own_text_ratio_and_other_seeds_other_sequences() -> None:
    late = speech_source(ratio=lambda step: 0.0).sequences(3)
    assert [s.ids.tolist() for s in speech_source().sequences(3)] != [s.ids.tolist() for s in late]
    assert [s.ids.tolist() for s in speech_source(seed=6).sequences(3)] != [
        s.ids.tolist() for s in speech_source().sequences(3)
    ]


def test_a_steps_sequences_have_the_ratio_of_that_step_and_not_of_its_neighbours() -> None:
    def ids(step: int, ratio) -> list[list[int]]:
        return [s.ids.tolist() for s in speech_source(ratio=ratio).sequences(step)]

    for step, text in ((2, 0.0), (3, 1.0), (4, 0.0)):
        assert ids(step, lambda s: float(s == 3)) == ids(step, lambda s, text=text: text)
        assert ids(step, lambda s: 0.0) != ids(step, lambda s: 1.0)


def test_an_epoch_without_temperature_has_every_utterance_once() -> None:
    order = UtteranceSampler([range(7), range(7, 12)], seed=1)
    for epoch in range(3):
        assert sorted(order[epoch * 12 + i] for i in range(12)) == list(range(12))
    assert [order[i] for i in range(12)] != [order[12 + i] for i in range(12)]


def test_temperature_brings_up_small_groups_more_often_and_evenly() -> None:
    order = UtteranceSampler([range(900), range(900, 1000)], seed=1, temperature=2.0)
    drawn = np.array([order[i] for i in range(10 * order.epoch_size)])
    assert (drawn >= 900).mean() == pytest.approx(0.25, abs=0.01)  # sqrt(100) / (sqrt(900) + sqrt(100))
    counts = np.bincount(drawn[drawn >= 900] - 900)
    assert counts.max() - counts.min() <= 1


@pytest.mark.slow
def test_task_weights_decide_how_often_each_task_comes() -> None:
    sequences = [s for step in range(60) for s in speech_source().sequences(step)]
    recognition = np.mean([set(s.segments.tolist()) == {0, 1, 2} for s in sequences])
    assert recognition == pytest.approx(1 / 3, abs=0.07)


def test_a_step_is_shared_out_whole_and_evenly() -> None:
    sequences = interleaved(*range(10, 90, 3))
    parts = split_step(sequences, 4)
    assert sorted(i for part in parts for i in part) == list(range(len(sequences)))
    tokens = [sum(len(sequences[i].ids) for i in part) for part in parts]
    assert max(tokens) - min(tokens) <= 90


def varlen_by_the_book(q, k, v, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
    """What torch documents of varlen_attn, which runs on GPUs alone: one sequence at a time."""
    assert window_size == (-1, 0) and cu_seq_q is cu_seq_k and int(cu_seq_q[-1]) == len(q) and q.dtype == k.dtype
    assert int(cu_seq_q.diff().max()) <= max_q == max_k
    outs = []
    for a, b in itertools.pairwise(cu_seq_q.tolist()):
        part = (x[a:b].transpose(0, 1) for x in (q, k, v))
        one = torch.nn.functional.scaled_dot_product_attention(
            *part, is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
        outs.append(one.transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", [BUCKET_INPUTS, FLASH_INPUTS], ids=["laid out", "flash"])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_packed_loss_and_gradients_equal_those_of_each_sequence_alone(
    kv_heads: int, inputs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_by_the_book)
    sequences = interleaved(5, 33, 64, 17, 290, 300)
    model = new_llama(SmallLm(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64), 210)
    if kv_heads != 4:
        model.config.num_key_value_heads = kv_heads
        model = type(model)(model.config)

    def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(**{k: batch[k] for k in ("input_ids", "position_ids", *inputs)}).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, batch["labels"], ignore_index=IGNORED, reduction="none")
        return (losses * batch["weights"]).sum() / step_weight(sequences, WEIGHTS)

    model.set_attn_implementation(PACKED)
    packed = loss(pack(sequences, WEIGHTS))
    packed.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model.set_attn_implementation("sdpa")  # transformers' own attention, one sequence at a time
    alone = torch.zeros(())
    for sequence in sequences:
        ids = torch.from_numpy(sequence.ids.astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        alone = alone + (losses * torch.tensor(WEIGHTS)[torch.from_numpy(sequence.segments[1:].astype(int))]).sum()
    alone = alone / step_weight(sequences, WEIGHTS)
    alone.backward()
    assert float(packed.detach()) == pytest.approx(float(alone.detach()), rel=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_token_hears_of_those_after_it(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 1, 2, 40, 16, generator=torch.Generator().manual_seed(0)).to(dtype)

    def attended(key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return packed_attention(torch.nn.Module(), q, key, value, None)[0]  # [1, tokens, heads, head]

    plain = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    torch.testing.assert_close(attended(k, v).float(), plain.transpose(1, 2), rtol=0.05, atol=0.05)
    for x in (k, v):
        x[:, :, 30:] = 5.0
    before = attended(k, v)[:, :30]
    for x in (k, v):
        x[:, :, 30:] = -5.0
    assert torch.equal(before, attended(k, v)[:, :30])


@pytest.mark.parametrize("how", [{"dropout": 0.1}, {"softcap": 30.0}])
def test_what_the_flash_kernel_cannot_do_is_an_error_and_no_leak(how: dict[str, float]) -> None:
    """With `cu_seqlens` alone nothing else says where the sequences begin."""
    q, k, v = torch.randn(3, 1, 2, 40, 16)
    cu_seqlens = torch.tensor([0, 15, 40], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="no dropout and no softcap"):
        packed_attention(torch.nn.Module(), q, k, v, None, cu_seqlens=cu_seqlens, max_seqlen=25, **how)


def test_tokens_of_weight_zero_are_not_predicted() -> None:
    sequences = interleaved(40, 20)
    batch = pack(sequences, [0.0, 0.0, 1.0, 1.0, 1.0])
    assert (batch["segments"][batch["labels"] != IGNORED] > 1).all()
    assert (batch["labels"] != IGNORED).sum() == sum((s.segments[1:] > 1).sum() for s in sequences)


def test_an_empty_micro_batch_counts_for_nothing() -> None:
    batch = pack([], WEIGHTS)
    assert (batch["labels"] == IGNORED).all() and int(batch["num_tokens"]) == 0
