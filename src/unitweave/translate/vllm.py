"""What an inference engine such as vLLM needs to keep to the stages, and the loop that uses it.

The language model of an export is an ordinary causal LM; the stages are five short requests for each
utterance, each with the tokens that its stage allows and the marker that ends it. With prefix caching an
engine computes only what is new in each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.files import read_json
from unitweave.core.sequences import deduplicate
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
from unitweave.translate.package import VLLM_FILE

_STAGES = (
    ("transcript_language", TRANSCRIPT_TAG),
    ("transcript", TRANSCRIPT),
    ("translation_language", TRANSLATION_TAG),
    ("translation", TRANSLATION),
    ("units", UNITS),
)


@dataclass(frozen=True)
class Request:
    """Go on from `prompt`, saying allowed tokens only, up to and with a stop token or up to `most` tokens."""

    prompt: list[int]
    allowed: list[int]
    stop: list[int]
    most: int


Generate = Callable[[list[Request]], list[list[int]]]


def engine_settings(folder: Path) -> dict[str, Any]:
    """The stages of an exported model: allowed token ids as ranges [first, last], stop token, most tokens."""
    vocabulary, tokenizer = Vocabulary.load(folder), AutoTokenizer.from_pretrained(folder)
    if not vocabulary.has_texts:
        raise InputError(f"{folder}: trained without s2st, this model has none of the stages that an engine keeps to")
    constraints = Constraints(vocabulary, tokenizer, vocabulary.size, torch.device("cpu"))
    tokens = constraints.tokens()
    stages = []
    for name, stage in _STAGES:
        closing = int(constraints.closing[stage])
        stages.append(
            {
                "name": name,
                "allowed_token_ids": _ranges(tokens[stage]),
                "stop_token_ids": [] if closing < 0 else [closing],
                "max_tokens": {"tag": 1} if closing < 0 else _limit(stage),
            }
        )
    return {"format": 1, "prompt": _prompt_settings(vocabulary), "stages": stages}


def _limit(stage: int) -> dict[str, float]:
    settings = DecodingSettings()
    if stage == UNITS:
        return {"per_source_unit": settings.max_units_per_frame, "plus": 50}
    return {"per_source_second": settings.max_text_tokens_per_second, "plus": 16}


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
    """Stage decoding through an engine; what `PhaseDecoder` does, but for its loop detection and repeat limit."""

    def __init__(self, folder: Path, generate: Generate) -> None:
        """`folder` was exported with --engine vllm; `generate` answers requests (`vllm_generate` makes one)."""
        if not (folder / VLLM_FILE).exists():
            raise InputError(f"{folder}: no {VLLM_FILE}; export the run with '--engine vllm'")
        self.settings, self.generate = read_json(folder / VLLM_FILE), generate
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.languages = {i: name for name, i in Vocabulary.load(folder).languages.items()}

    def translate(self, sources: Sequence[np.ndarray]) -> list[Translation]:
        """Translate the units of each source utterance, all of them stage by stage."""
        prompts = [self._prompt(units) for units in sources]
        results = [Translation() for _ in sources]
        for stage in self.settings["stages"]:
            allowed = [t for first, last in stage["allowed_token_ids"] for t in range(first, last + 1)]
            requests = [
                Request(prompt, allowed, stage["stop_token_ids"], self._most(stage["max_tokens"], len(source)))
                for prompt, source in zip(prompts, sources, strict=True)
            ]
            for i, said in enumerate(self.generate(requests)):
                body = [t for t in said if t not in stage["stop_token_ids"]]
                results[i].complete &= not stage["stop_token_ids"] or len(body) < len(said)
                if stage["stop_token_ids"]:
                    body = body[: requests[i].most - 1]  # the last place was for the stop token
                prompts[i] = prompts[i] + body + stage["stop_token_ids"]
                self._take(results[i], stage["name"], body)
        return results

    def _prompt(self, units: np.ndarray) -> list[int]:
        about = self.settings["prompt"]
        if about["deduplicate"]:
            units, _ = deduplicate(units)
        body = (units.astype(np.int64) + about["unit_offset"]).tolist()
        begin = [] if about["begin"] is None else [about["begin"]]
        return [*begin, about["source"], *body, about["transcript"]]

    def _most(self, limit: dict[str, float], frames: int) -> int:
        if "tag" in limit:
            return int(limit["tag"])
        if "per_source_unit" in limit:
            return int(frames * limit["per_source_unit"] + limit["plus"]) + 1
        return int(frames / 50 * limit["per_source_second"] + limit["plus"]) + 1

    def _take(self, result: Translation, stage: str, said: list[int]) -> None:
        if stage == "transcript_language":
            result.language = self.languages[said[0]]
        elif stage == "units":
            result.units = np.array(said, np.int64) - self.settings["prompt"]["unit_offset"]
        elif stage in ("transcript", "translation"):
            setattr(result, stage, self.tokenizer.decode(said).strip())


def vllm_generate(llm: Any) -> Generate:
    """`generate` over a vllm.LLM(folder, enable_prefix_caching=True)."""
    from vllm import SamplingParams

    def generate(requests: list[Request]) -> list[list[int]]:
        parameters = [
            SamplingParams(
                temperature=0.0,
                max_tokens=r.most,
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
