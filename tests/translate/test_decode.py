"""Decoding: stages, batches, beams, given texts; transformers' generate and a plain beam search as references."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from helpers.decoders import UNITS_IN_BOOK, random_decoder
from helpers.serving import make_run
from unitweave.config.interleave import InterleaveSettings
from unitweave.config.translate import DecodingSettings, TranslateSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, write_manifest
from unitweave.interleaving.sequence import SOURCE, Example, interleave, prepare_speech
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.constraints import DONE, TRANSCRIPT, TRANSLATION, Continuation, DecoderState
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder, Translation
from unitweave.translate.loops import LOOP_WINDOW, PHRASE_LOOP
from unitweave.translate.stage import translate_split
from unitweave.translate.vllm import engine_settings
from unitweave.units.dataset import UnitRow, write_shard


@pytest.fixture(scope="module")
def decoder(text_lm_folder: Path) -> PhaseDecoder:
    return random_decoder(text_lm_folder)


@pytest.fixture(scope="module")
def direct(decoder: PhaseDecoder) -> PhaseDecoder:
    """The same model, as if it had been trained without the chain of thought."""
    return PhaseDecoder(decoder.model, decoder.tokenizer, replace(decoder.vocabulary, tasks=["direct"]))


@pytest.fixture(scope="module")
def sources() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, UNITS_IN_BOOK, size=n).astype(np.uint16) for n in (30, 7, 19, 1, 44)]


def short(**changes: object) -> DecodingSettings:
    return DecodingSettings(**({"max_text_tokens_per_second": 2.0, "max_units_per_frame": 0.5} | changes))  # type: ignore[arg-type]


def same(a: Translation, b: Translation) -> bool:
    return (a.language, a.transcript, a.translation, a.complete) == (
        b.language,
        b.transcript,
        b.translation,
        b.complete,
    ) and np.array_equal(a.units, b.units)


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"num_beams": 3}, {"text_only": True}])
def test_a_batch_gives_what_each_utterance_gets_alone(decoder: PhaseDecoder, sources: list, how: dict) -> None:
    together = decoder.translate(sources, short(**how))
    for source, result in zip(sources, together, strict=True):
        alone = decoder.translate([source], short(**how))[0]
        assert same(alone, result)
        assert alone.score == pytest.approx(result.score, abs=1e-4)
        assert len(result.units) == 0 or not how.get("text_only")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decoder", "direct"])
def test_greedy_decoding_is_what_transformers_generate_says_under_the_same_constraints(
    kind: str, sources: list, request: pytest.FixtureRequest
) -> None:
    decoder: PhaseDecoder = request.getfixturevalue(kind)
    tokens = decoder.constraints.tokens()
    settings = short(max_unit_repeats=1000)  # generate knows no such limit
    for source, result in zip(sources, decoder.translate(sources, settings), strict=True):
        prompt = torch.tensor([decoder.prompt(source)])
        state: list[DecoderState] = []

        def allowed(
            _: int,
            ids: torch.Tensor,
            prompt: torch.Tensor = prompt,
            source: np.ndarray = source,
            state: list[DecoderState] = state,
        ) -> list[int]:
            if len(ids) == prompt.shape[1]:
                state[:] = [DecoderState([len(source)], [{}], settings, decoder.constraints)]
            else:
                state[0].advance(ids[-1:], torch.zeros(1))
            _, forced = state[0].constrain(torch.zeros(1, decoder.constraints.allowed.shape[1]))
            return [int(forced)] if forced >= 0 else tokens[int(state[0].phase)]

        plain = AutoModelForCausalLM.from_config(decoder.model.config, attn_implementation="eager").eval()
        plain.load_state_dict(decoder.model.state_dict())
        with torch.inference_mode():
            said = plain.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=400,
                eos_token_id=decoder.vocabulary.markers["end"],
                pad_token_id=0,
                prefix_allowed_tokens_fn=allowed,
            )
        reference = decoder.read(said[0, prompt.shape[1] :].tolist())
        assert reference.transcript == result.transcript and reference.translation == result.translation
        assert np.array_equal(reference.units, result.units)


@pytest.mark.parametrize("kind", ["decoder", "direct"])
def test_a_prompt_is_how_the_training_sequence_of_the_utterance_begins(
    kind: str, sources: list, request: pytest.FixtureRequest
) -> None:
    """Up to and with the marker that opens what the model has to say."""
    decoder: PhaseDecoder = request.getfixturevalue(kind)
    v, text = decoder.vocabulary, np.array([decoder.vocabulary.languages["es"], 7, 8], np.int32)
    for source in sources:
        units = source.astype(np.int32) + v.unit_offset
        none = np.empty(0, np.int32)
        speech = prepare_speech(units, none, none, none, [], InterleaveSettings())
        task = "s2st" if kind == "decoder" else "direct"
        interleaved = interleave(
            Example(speech, speech, text, text), task, 0.0, InterleaveSettings(), v.sequence_markers, Random(0)
        )
        said = interleaved.ids[np.flatnonzero(interleaved.segments == SOURCE)[-1] + 1 :]
        assert [*decoder.prompt(source), *said.tolist()] == interleaved.ids.tolist()


@pytest.mark.slow
def test_a_model_without_texts_speaks_at_once(direct: PhaseDecoder, sources: list) -> None:
    received = Received()
    results = direct.translate(sources, short(batch_size=2), streamer=received)
    assert [received.units.get(i, []) for i in range(len(sources))] == [r.units.tolist() for r in results]
    assert received.translations == dict.fromkeys(range(len(sources)), ""), (
        "a streamer that waits for texts does not wait for ever"
    )
    assert all(r.language == r.transcript == r.translation == "" and set(r.scores) == {"units"} for r in results)
    for one, other in zip(results, direct.translate(sources, short(num_beams=3)), strict=True):
        assert same(one, other), "there is nothing to search"
    with pytest.raises(InputError, match="without texts"):
        direct.translate(sources[:1], short(), [ForcedPrefix(transcript="el perro")])
    with pytest.raises(InputError, match="text_only"):
        direct.translate(sources[:1], short(text_only=True))


def test_a_split_is_translated_by_a_model_without_texts(tmp_path: Path, text_lm_folder: Path) -> None:
    run = make_run(tmp_path / "run", text_lm_folder)
    lm, rng = run / "lm/scheduled/model", np.random.default_rng(0)
    vocabulary = Vocabulary.load(lm)
    replace(vocabulary, tasks=["direct"]).save(lm)
    none = np.empty(0, np.int32)
    units = [rng.integers(0, 16, size=n).astype(np.uint16) for n in (30, 12)]
    rows = [UnitRow(f"u{i}", "src", u, [], none, none, none.astype(np.float32)) for i, u in enumerate(units)]
    write_shard(run / "units", 0, rows, {"codebook": vocabulary.codebook, "num_units": "16", "frame_rate": "50"})
    write_manifest(run / "corpus", [Pair(f"u{i}", "test", "es", "en", "x", None, "el perro", "a") for i in range(2)])
    outcome = translate_split(
        run / "out", TranslateSettings(**vars(short())), run / "corpus", run / "units", lm, run / "vocoder"
    )
    lines = [json.loads(line) for line in (run / "out/outputs.jsonl").read_text().splitlines()]
    assert outcome.counts["utterances"] == len(lines) == 2
    assert all(line["units"] and line["translation"] == "" for line in lines)
    assert all((run / "out" / line["audio"]).exists() for line in lines)
    with pytest.raises(InputError, match="without texts"):
        engine_settings(lm)


def plain_beam_search(decoder: PhaseDecoder, source: np.ndarray, settings: DecodingSettings) -> tuple[list[int], bool]:
    """Beam search without a cache and without a batch: every hypothesis is a list, computed from its beginning.

    Returns the best one and whether a limit cut it off.
    """
    settings = DecodingSettings(**(vars(settings) | {"text_only": True}))
    prompt = decoder.prompt(source)

    def replay(said: list[int]) -> DecoderState:
        state = DecoderState([len(source)], [{}], settings, decoder.constraints)
        for token in said:
            state.constrain(torch.zeros(1, decoder.constraints.allowed.shape[1]))
            state.advance(torch.tensor([token]), torch.zeros(1))
        return state

    def extensions(said: list[int], total: float) -> Iterator[tuple[float, list[int]]]:
        state = replay(said)
        if int(state.phase) == DONE:
            yield total, said
            return
        with torch.inference_mode():
            logits = decoder.model(torch.tensor([prompt + said])).logits[:, -1]
        log_probs, forced = state.constrain(logits)
        for token in [int(forced)] if forced >= 0 else decoder.constraints.tokens()[int(state.phase)]:
            yield total + float(log_probs[0, token]), [*said, token]

    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    while any(int(replay(said).phase) != DONE for _, said in beams):
        grown = [one for total, said in beams for one in extensions(said, total)]
        beams = sorted(grown, key=lambda one: -one[0])[: settings.num_beams]
    best = max(beams, key=lambda one: one[0] / len(one[1]) ** settings.length_penalty)[1]
    return best, bool(replay(best).cut)


@pytest.mark.slow
def test_beam_search_finds_what_a_plain_one_finds(decoder: PhaseDecoder, sources: list) -> None:
    settings = short(num_beams=3, text_only=True, max_text_tokens_per_second=0.0)
    for source, result in zip(sources[:3], decoder.translate(sources[:3], settings), strict=True):
        tokens, cut = plain_beam_search(decoder, source, settings)
        expected = decoder.read(tokens)
        assert (expected.language, expected.transcript, expected.translation) == (
            result.language,
            result.transcript,
            result.translation,
        )
        assert result.complete is not cut


@pytest.mark.slow
def test_a_given_text_is_said_and_the_rest_follows_from_it(decoder: PhaseDecoder, sources: list) -> None:
    given = [
        ForcedPrefix(transcript="El perro", language="es"),
        None,
        ForcedPrefix(translation="Red, house!"),
        None,
        None,
    ]
    free = decoder.translate(sources, short())
    for beam in (1, 2):
        results = decoder.translate(sources, short(num_beams=beam), given)
        assert (results[0].transcript, results[0].language) == ("el perro", "es")
        assert results[2].translation == "red house"
    results = decoder.translate(sources, short(), given)
    assert results[2].transcript == free[2].transcript, "what comes before the given text is the model's own"
    assert all(same(results[i], free[i]) for i in (1, 3, 4))


@pytest.mark.parametrize("streamed", [False, True])
def test_weights_that_are_no_numbers_are_damaged(text_lm_folder: Path, sources: list, streamed: bool) -> None:
    damaged = random_decoder(text_lm_folder)
    with torch.no_grad():
        damaged.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(InputError, match="weights are damaged"):
        damaged.translate(sources[:2], short(), streamer=MagicMock() if streamed else None)


def test_units_out_of_the_book_and_unknown_languages_are_refused(decoder: PhaseDecoder, sources: list) -> None:
    with pytest.raises(InputError, match="codebook"):
        decoder.translate([np.array([UNITS_IN_BOOK])], short())
    with pytest.raises(InputError, match="'xx'"):
        decoder.translate(sources[:1], short(), [ForcedPrefix(language="xx")])
    with pytest.raises(InputError, match="num_beams"):
        decoder.translate(sources[:1], short(num_beams=0))
    with pytest.raises(InputError, match="seed"):
        decoder.translate(sources[:1], short(seed=-1))


class Received:
    """A streamer that keeps what it gets."""

    def __init__(self) -> None:
        self.translations: dict[int, str] = {}
        self.units: dict[int, list[int]] = {}

    def texts(self, index: int, hypothesis: Translation) -> None:
        assert index not in self.units, "texts come before units"
        self.translations[index] = hypothesis.translation

    def unit(self, index: int, unit: int) -> None:
        self.units.setdefault(index, []).append(unit)


@pytest.mark.slow
def test_a_streamer_gets_the_texts_and_then_every_unit(decoder: PhaseDecoder, sources: list) -> None:
    received = Received()
    results = decoder.translate(sources, short(batch_size=2), streamer=received)
    assert [received.translations[i] for i in range(len(sources))] == [r.translation for r in results]
    assert [received.units.get(i, []) for i in range(len(sources))] == [r.units.tolist() for r in results]


@pytest.mark.slow
def test_sampled_units_follow_the_seed_and_texts_stay(decoder: PhaseDecoder, sources: list) -> None:
    first, again, other = (decoder.translate(sources, short(temperature=1.5, seed=s)) for s in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a.units, b.units) for a, b in zip(first, other, strict=True))
    assert [r.transcript for r in first] == [r.transcript for r in other]


def rigged(decoder: PhaseDecoder, pattern: list[int], monkeypatch: pytest.MonkeyPatch, forever: bool = False) -> None:
    """Make the model want to say the units of `pattern` for ever, and before that no text, or such a one, too."""
    v, said = decoder.vocabulary, [0]

    def step(ids: torch.Tensor, *_: object) -> torch.Tensor:
        logits = torch.zeros(len(ids), decoder.constraints.allowed.shape[1])
        logits[:, [v.markers["translation"], v.markers["target"]]] = 50.0
        logits[:, v.unit_offset + pattern[said[0] % len(pattern)]] = 90.0
        if forever:
            logits[:, decoder.constraints.text[pattern[said[0] % len(pattern)]]] = 80.0
        said[0] += 1
        return logits[:, None]

    monkeypatch.setattr(decoder, "step", step)
    rows = SimpleNamespace(batch_select_indices=len, batch_repeat_interleave=int, reorder_cache=len)
    monkeypatch.setattr("unitweave.translate.prefix_cache.growing_cache", lambda config: rows)


def test_units_that_turn_in_circles_are_ended(decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    rigged(decoder, [3, 5, 5, 8], monkeypatch)
    result = decoder.translate([np.zeros(500, np.int64)], DecodingSettings())[0]
    assert len(result.units) == LOOP_WINDOW and not result.complete


@pytest.mark.parametrize("beams", [1, 2])
def test_a_text_that_repeats_a_phrase_is_ended(
    decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch, beams: int
) -> None:
    rigged(decoder, [3, 5, 5, 8], monkeypatch, forever=True)
    result = decoder.translate([np.zeros(500, np.int64)], DecodingSettings(num_beams=beams, text_only=True))[0]
    closing = [int(decoder.constraints.closing[phase]) for phase in (TRANSCRIPT, TRANSLATION)]
    transcript, translation = (result.tokens.index(marker) for marker in closing)
    assert (transcript - 1, translation - transcript - 2) == (PHRASE_LOOP, PHRASE_LOOP) and not result.complete


def test_limits_hold_and_are_reported(decoder: PhaseDecoder, sources: list) -> None:
    for result, source in zip(decoder.translate(sources, short()), sources, strict=True):
        assert len(result.units) <= len(source) * 0.5 + 50
        assert set(result.seconds) == {"transcript", "translation", "units"} == set(result.scores)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_units_block_by_block_are_those_of_one_call(decoder: PhaseDecoder, sources: list, block: int) -> None:
    settings = short(max_unit_repeats=3)
    whole, read = decoder.translate(sources, settings), decoder.translate(sources, replace(settings, text_only=True))
    target = decoder.vocabulary.markers["target"]
    texts = [tuple(one.tokens[: one.tokens.index(target) + 1]) for one in whole]
    units: list[tuple[int, ...]] = [() for _ in sources]
    going, steps = list(range(len(sources))), 0
    while going:
        states = [Continuation(texts[i], units[i], block) for i in going]
        found = decoder.continue_units([sources[i] for i in going], states, settings)
        for i, one in zip(going, found, strict=True):
            assert len(one.units) - len(units[i]) <= block and one.transcript == whole[i].transcript
            units[i] = tuple(one.units.tolist())
            assert not one.ended or (one.complete and read[i].complete) == whole[i].complete
        going = [i for i, one in zip(going, found, strict=True) if not one.ended]
        steps += 1
    assert [list(one) for one in units] == [one.units.tolist() for one in whole]
    assert steps >= max(len(one) for one in units) / block


@pytest.mark.slow
def test_units_do_not_end_before_their_least_number(decoder: PhaseDecoder, sources: list) -> None:
    settings = short(max_unit_repeats=3)
    whole = decoder.translate(sources, settings)
    target = decoder.vocabulary.markers["target"]
    texts = [tuple(one.tokens[: one.tokens.index(target) + 1]) for one in whole]
    for least in (0, 3, 30):
        states = [
            Continuation(text, tuple(one.units[:2].tolist()), 100, least)
            for text, one in zip(texts, whole, strict=True)
        ]
        found = decoder.continue_units(sources, states, settings)
        assert all(len(one.units) >= least for one in found if one.complete)
        for one, other in zip(found, whole, strict=True):
            if len(other.units) >= least:
                assert one.units.tolist() == other.units.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_after_the_beginning_of_a_translation_a_new_word_or_its_end_follows(
    decoder: PhaseDecoder, sources: list, beams: int
) -> None:
    given = [int(i) for i in decoder.tokenizer(" the small")["input_ids"]]
    found = decoder.translate(sources, short(num_beams=beams, text_only=True), [{TRANSLATION: given}] * len(sources))
    free = decoder.translate(sources, short(num_beams=beams, text_only=True))
    markers, starts = decoder.vocabulary.markers, decoder.constraints.word_starts
    for one in found:
        begin = one.tokens.index(markers["translation"]) + 2
        rest = one.tokens[begin + len(given) :]
        assert one.tokens[begin : begin + len(given)] == given
        assert rest[0] == markers["target"] or starts[rest[0]]
    firsts = [one.tokens[one.tokens.index(markers["translation"]) + 2] for one in free]
    assert not all(starts[token] for token in firsts if token < decoder.vocabulary.text_size)  # it is a constraint
