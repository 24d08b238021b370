"""Decoding in phases through an inference engine such as vLLM.

The language model is an ordinary causal LM; the phases are five short requests for each utterance, each with the
tokens that its phase allows and the marker that ends it. With prefix caching an engine computes only what is new in
each. The limits of repetitions and loops are kept outside of the engine, whose interface for them changes from version
to version: what runs over one is cut where it does, and the request goes on from there.
"""

import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.sequences import deduplicate
from unitweave.lm.model.start import load_tokenizer
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.constraints import (
    TRANSCRIPT,
    TRANSCRIPT_TAG,
    TRANSLATION,
    TRANSLATION_TAG,
    UNITS,
    Constraints,
    Translation,
)
from unitweave.translate.loops import LOOP_CHECK_EVERY, first_phrase_loop, in_a_loop, loop_window, max_repeats

FORMAT = 2
_PHASES = {
    "transcript_language": TRANSCRIPT_TAG,
    "transcript": TRANSCRIPT,
    "translation_language": TRANSLATION_TAG,
    "translation": TRANSLATION,
    "units": UNITS,
}


@dataclass(frozen=True)
class Request:
    """What an engine is asked to continue.

    Attributes:
        prompt: Token ids to continue from.
        allowed: The only tokens that may follow.
        stop: Tokens that end the answer, and are the last of it.
        max_tokens: Maximum tokens of the answer.
        temperature: Of the sampling; 0 takes the most probable token.
        seed: Of the sampling.
    """

    prompt: list[int]
    allowed: list[int]
    stop: list[int]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0


Generate = Callable[[list[Request]], list[list[int]]]


def engine_settings(folder: Path, settings: DecodingSettings | None = None) -> dict[str, Any]:
    """The phases of a model: allowed token ids as ranges [first, last], stop token, maximum tokens, limits.

    Raises:
        InputError: The model was trained without texts.
    """
    vocabulary, tokenizer = Vocabulary.load(folder), load_tokenizer(str(folder))
    if not vocabulary.has_texts:
        raise InputError(
            f"{folder}: this model was trained without texts, which vLLM cannot decode; use it without vLLM"
        )
    constraints = Constraints(vocabulary, tokenizer, vocabulary.size, torch.device("cpu"))
    tokens = constraints.tokens()
    phases = []
    left_out = {"asr": (TRANSLATION_TAG, TRANSLATION, UNITS), "s2tt": (UNITS,)}.get(str(vocabulary.task), ())
    for name, phase in _PHASES.items():
        if phase in left_out:
            continue
        closing = int(constraints.closing[phase])
        phases.append(
            {
                "name": name,
                "allowed_token_ids": _ranges(tokens[phase]),
                "stop_token_ids": [] if closing < 0 else [closing],
                "max_tokens": {"tag": 1}
                if closing < 0
                else _limit(phase, settings or DecodingSettings(), vocabulary.frame_rate),
            }
        )
    return {"format": FORMAT, "prompt": _prompt_settings(vocabulary), "phases": phases}


def _limit(phase: int, settings: DecodingSettings, frame_rate: float) -> dict[str, Any]:
    if phase == UNITS:
        in_a_row = max_repeats(settings, frame_rate)
        return {"per_source_unit": settings.max_units_per_frame, "plus": frame_rate, "in_a_row": in_a_row}
    return {"per_source_unit": settings.max_text_tokens_per_second / frame_rate, "plus": 16}


def _prompt_settings(v: Vocabulary) -> dict[str, Any]:
    return {
        "begin": v.begin,
        "source": v.markers["source"],
        "unit_offset": v.unit_offset,
        "num_units": v.num_units,
        "transcript": v.markers["transcript"],
        "deduplicate": v.deduplicate,
    }


def _ranges(tokens: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for token in sorted(tokens):
        if found and token == found[-1][1] + 1:
            found[-1][1] = token
        else:
            found.append([token, token])
    return found


class EngineDecoder:
    """Decoding in phases through an engine: the translations of `PhaseDecoder`, where both compute the same logits."""

    def __init__(self, folder: Path, generate: Generate, settings: DecodingSettings | None = None) -> None:
        """Make a decoder.

        Args:
            folder: A language model of a run, or an exported one.
            generate: Answers requests; `start_vllm` and `vllm_generate` make one.
            settings: How to decode; beams are not supported.

        Raises:
            InputError: The folder holds no such model, or one that was trained without texts.
        """
        self.settings, self.generate = settings or DecodingSettings(), generate
        self.phases = engine_settings(folder, self.settings)
        self.tokenizer = load_tokenizer(str(folder))
        self.vocabulary = Vocabulary.load(folder)
        self.languages = {i: name for name, i in self.vocabulary.languages.items()}
        self.frame_rate = self.vocabulary.frame_rate

    def translate(
        self, sources: Sequence[np.ndarray], target_languages: Sequence[str | None] | None = None
    ) -> list[Translation]:
        """Translate the units of each source utterance, all of them phase by phase.

        Args:
            sources: Units [frames] of each utterance, at 50 Hz.
            target_languages: The language to translate each into, where the model has several.

        Raises:
            InputError: The model does not translate into one of these, or has to be told one.
        """
        known = self.vocabulary.targets
        default = self.settings.target_language
        targets = [
            self.vocabulary.language_code(language or default) for language in target_languages or [None] * len(sources)
        ]
        if unknown := [
            language
            for language in targets
            if language is not None and language not in (known or self.vocabulary.languages)
        ]:
            raise InputError(f"target_language: must be one of {', '.join(known)} (got {unknown[0]!r})")
        prompts = [self._prompt(units) for units in sources]
        seeds = [zlib.crc32(f"{self.settings.seed} {units.tolist()}".encode()) & 0x7FFFFFFF for units in sources]
        results = [Translation() for _ in sources]
        for phase in self.phases["phases"]:
            if phase["name"] == "units" and self.settings.text_only:
                break
            allowed = [t for first, last in phase["allowed_token_ids"] for t in range(first, last + 1)]
            temperature = self.settings.temperature if phase["name"] == "units" else 0.0
            limits = [self._max_tokens(phase["max_tokens"], len(source)) for source in sources]
            requests = [
                Request(
                    prompt,
                    self._target_tags(result, target) if phase["name"] == "translation_language" else allowed,
                    phase["stop_token_ids"],
                    limit,
                    temperature,
                    seed,
                )
                for prompt, limit, seed, result, target in zip(prompts, limits, seeds, results, targets, strict=True)
            ]
            for i, answer in enumerate(self._answers(requests, phase["max_tokens"].get("in_a_row"))):
                stop = phase["stop_token_ids"]
                body = [t for t in answer if t not in stop]
                # As in `DecoderState`: at its limit a phase is cut off, even where the model would have ended it.
                results[i].complete &= not stop or len(body) < len(answer) < limits[i]
                if stop:
                    body = body[: limits[i] - 1]  # the last place was for the stop token
                prompts[i] = prompts[i] + body + stop
                self._take(results[i], phase["name"], body)
        return results

    def _target_tags(self, result: Translation, target_language: str | None) -> list[int]:
        """The tags that an utterance's translation may begin with."""
        v = self.vocabulary
        targets = [target_language] if target_language else v.targets_from(result.language)
        if len(targets) > 1:
            raise InputError(
                f"target_language: from {result.language} this model translates into {', '.join(targets)}; choose one"
            )
        return [v.languages[code] for code in targets or v.targets or v.languages]

    def _answers(self, requests: Sequence[Request], in_a_row: int | None) -> list[list[int]]:
        """The engine's answers; those that break a limit of repetitions are cut there and continued."""
        answers: list[list[int]] = [[] for _ in requests]
        waiting: dict[int, int | None] = dict.fromkeys(range(len(requests)))  # request -> what may not come next
        while waiting:
            asked = [_continued(requests[i], answers[i], banned) for i, banned in waiting.items()]
            following: dict[int, int | None] = {}
            for i, answer in zip(waiting, self.generate(asked), strict=True):
                answers[i] += answer
                if in_a_row is None:
                    if (loop := first_phrase_loop(answers[i])) is not None:
                        del answers[i][loop:]  # without a stop token: it counts as cut off
                    continue
                loop, run = _first_loop(answers[i], self.frame_rate), _first_run(answers[i], in_a_row)
                if loop is not None and (run is None or loop <= run):
                    del answers[i][loop:]  # without a stop token: it counts as cut off
                elif run is not None:
                    following[i] = answers[i][run]
                    del answers[i][run:]
                elif answers[i][-1] not in requests[i].stop and len(answers[i]) < requests[i].max_tokens:
                    following[i] = None
            waiting = following
        return answers

    def _prompt(self, units: np.ndarray) -> list[int]:
        about = self.phases["prompt"]
        if about["deduplicate"]:
            units, _ = deduplicate(units)
        body = (units.astype(np.int64) + about["unit_offset"]).tolist()
        begin = [] if about["begin"] is None else [about["begin"]]
        return [*begin, about["source"], *body, about["transcript"]]

    def _max_tokens(self, limit: dict[str, Any], frames: int) -> int:
        if "tag" in limit:
            return int(limit["tag"])
        return int(frames * limit["per_source_unit"] + limit["plus"]) + 1

    def _take(self, result: Translation, phase: str, tokens: list[int]) -> None:
        if phase == "transcript_language":
            result.language = self.languages[tokens[0]]
        elif phase == "translation_language":
            result.target_language = self.languages[tokens[0]]
        elif phase == "units":
            result.units = np.array(tokens, np.int64) - self.phases["prompt"]["unit_offset"]
        elif phase in ("transcript", "translation"):
            setattr(result, phase, self.tokenizer.decode(tokens).strip())


def _continued(request: Request, answer: list[int], banned: int | None) -> Request:
    """The request for what is still missing; only the next token, where one is banned."""
    allowed = request.allowed if banned is None else [t for t in request.allowed if t != banned]
    left = request.max_tokens - len(answer) if banned is None else 1
    return replace(
        request, prompt=request.prompt + answer, allowed=allowed, max_tokens=left, seed=request.seed + len(answer)
    )


def _first_loop(tokens: Sequence[int], frame_rate: float) -> int | None:
    """How many tokens it takes until a loop is found, at the lengths at which `in_a_loop` looks; None for never."""
    first = -(-loop_window(frame_rate) // LOOP_CHECK_EVERY) * LOOP_CHECK_EVERY
    ends = range(first, len(tokens) + 1, LOOP_CHECK_EVERY)
    return next((end for end in ends if in_a_loop(tokens[:end], frame_rate)), None)


def _first_run(tokens: Sequence[int], in_a_row: int) -> int | None:
    """The place of the first token that stands there more often in a row than it may; None for none."""
    repeats = 0
    for place, token in enumerate(tokens):
        repeats = repeats + 1 if place and token == tokens[place - 1] else 1
        if repeats > in_a_row:
            return place
    return None


def start_vllm(model: Path) -> Generate:
    """`generate` over vLLM with the GPU of this process, or the CPU with vLLM's build for it.

    vLLM computes in a process of its own, which sees one GPU and nothing of the launcher that started this one. The
    checkpoint's precision is kept: left to itself, vLLM rounds float32 weights to 16 bits.
    """
    from vllm import LLM

    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = int(os.environ.get("LOCAL_RANK", "0"))
    launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: os.environ.pop(name) for name in launcher if name in os.environ}
    environment = {"CUDA_VISIBLE_DEVICES": visible[index] if visible != [""] else str(index)}
    environment["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        dtype = str(AutoConfig.from_pretrained(model, trust_remote_code=False).dtype or torch.float32).removeprefix(
            "torch."
        )
        return vllm_generate(LLM(str(model), dtype=dtype, enable_prefix_caching=True))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        os.environ.update(kept)


def vllm_generate(llm: Any) -> Generate:
    """`generate` over a vllm.LLM(folder, enable_prefix_caching=True)."""
    from vllm import SamplingParams

    def generate(requests: list[Request]) -> list[list[int]]:
        parameters = [
            SamplingParams(
                temperature=r.temperature,
                seed=r.seed if r.temperature else None,
                max_tokens=r.max_tokens,
                allowed_token_ids=r.allowed,
                stop_token_ids=r.stop,
                ignore_eos=True,
                detokenize=False,
            )
            for r in requests
        ]
        prompts = [{"prompt_token_ids": r.prompt} for r in requests]
        answers = llm.generate(prompts, parameters, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in answers]

    return generate
