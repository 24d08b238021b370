"""Steps as CUDA graphs: the same logits and translations as without. Where there is no GPU, all but the replaying."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
)

from helpers.decoders import UNITS_IN_BOOK, random_decoder
from unitweave.config.translate import DecodingSettings
from unitweave.translate.constraints import UNITS
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.graphs import FixedCache, StepGraphs
from unitweave.translate.output_layer import use_phase_output_layer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def decoder(text_lm_folder: Path) -> PhaseDecoder:
    made = random_decoder(text_lm_folder, DEVICE)
    made._output_layer = use_phase_output_layer(made.model, made.constraints.tokens()[UNITS])
    return made


def sources(sizes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, UNITS_IN_BOOK, size=n).astype(np.uint16) for n in sizes]


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(30, 7, 19, 1, 44), (9,), (240, 3, 100)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_translations_are_those_without_graphs(
    decoder: PhaseDecoder, sizes: tuple[int, ...], temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when rows leave the batch one after the other, and when the buffers become too small on the way."""
    settings = DecodingSettings(max_text_tokens_per_second=2.0, max_units_per_frame=0.5, temperature=temperature)
    given = sources(sizes)
    plain = decoder.translate(given, settings)
    decoder._graphs = StepGraphs(decoder.model, decoder._output_layer and decoder._output_layer.narrow)
    steps, step = [], StepGraphs.step
    monkeypatch.setattr(StepGraphs, "step", lambda *arguments: steps.append(1) or step(*arguments))
    for _ in range(2):  # the second time with the buffers of the first, which hold other keys
        found = decoder.translate(given, settings)
        for a, b in zip(found, plain, strict=True):
            assert a.tokens == b.tokens and a.score == pytest.approx(b.score, abs=1e-4)
    assert len(steps) > 20


def test_buffers_belong_to_one_batch_at_a_time(decoder: PhaseDecoder) -> None:
    graphs = StepGraphs(decoder.model)
    first = graphs.cache(2, 10)
    assert isinstance(first, FixedCache) and graphs.cache(1, 5) is None
    del first
    assert graphs.cache(1, 5) is not None


@pytest.mark.slow
def test_memory_is_asked_for_before_it_is_taken(decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = StepGraphs(decoder.model)
    decoder._graphs = graphs
    decoder.translate(sources((30, 7, 19)), DecodingSettings(max_text_tokens_per_second=1.0, max_units_per_frame=0.2))
    (held,) = graphs._buffers
    taken = sum(part.numel() * part.element_size() for both in held.layers.values() for part in both)
    assert graphs._bytes(3, 40) == taken > 0
    monkeypatch.setattr(StepGraphs, "_has_room", lambda *_: False)
    assert graphs.cache(100, 900) is None and graphs._buffers == [held]


def test_graphs_go_with_the_buffers_that_larger_ones_replace(decoder: PhaseDecoder) -> None:
    graphs = StepGraphs(decoder.model)
    assert graphs._agree()
    graphs._pool = "memory of these graphs"
    assert graphs.cache(2, 10) is not None and graphs._graphs and graphs._pool
    assert graphs.cache(20, 10) is not None and not graphs._graphs and graphs._pool is None


def test_a_check_at_loading_finds_what_does_not_work(decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert StepGraphs(decoder.model)._agree()
    monkeypatch.setattr(torch.Tensor, "index_copy_", lambda self, *arguments: self)  # the token's key gets lost
    assert not StepGraphs(decoder.model)._agree()


@pytest.mark.parametrize("mixed", [True, False])
def test_sliding_windows(mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reaches beyond the window; a mask of another window does not pass it."""
    shape = {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 16, "intermediate_size": 32, "sliding_window": 8, "initializer_range": 0.5,
    }  # fmt: skip
    model: torch.nn.Module = MistralForCausalLM(MistralConfig(**shape))
    if mixed:
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, layer_types=["sliding_attention", "full_attention"]))
    graphs = StepGraphs(model.eval().to(DEVICE))
    assert graphs._agree()
    monkeypatch.setattr(graphs, "_window", 100)
    assert not graphs._agree()


def test_a_model_on_a_cpu_has_no_graphs(decoder: PhaseDecoder) -> None:
    assert StepGraphs.that_work(decoder.model.cpu()) is None
