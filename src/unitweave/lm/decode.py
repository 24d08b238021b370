"""Decoding in stages: transcript, translation, units, each with the vocabulary of its stage enforced.

A batch advances together, one token a step, with a key-value cache; rows may be in different stages, and a
row that ends leaves the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from unitweave.core.errors import InputError
from unitweave.lm.vocabulary import Vocabulary

TRANSCRIPT_TAG, TRANSCRIPT, TRANSLATION_TAG, TRANSLATION, UNITS, DONE = range(6)


@dataclass
class DecodeSettings:
    """How translations are decoded."""

    batch: int = 32  # utterances decoded together
    temperature: float = 0.0  # of the units; 0 takes the most probable one
    text_per_second: float = 12.0  # most text tokens per second of source speech, plus 16
    units_per_frame: float = 2.5  # most target units per source frame, plus 50
    repeat_limit: int = 60  # one unit may not be repeated more often than this in a row (60 are 1.2 s)
    seed: int = 1


@dataclass
class Translation:
    """What the model said: language of the source, transcript, translation and target units."""

    language: str = ""
    transcript: str = ""
    translation: str = ""
    units: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    complete: bool = True  # False where a length limit cut it off
    score: float = 0.0  # mean log-probability of the chosen tokens


class StageDecoder:
    """A trained language model that translates units, in batches."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self.model, self.tokenizer, self.vocabulary = model.eval(), tokenizer, vocabulary
        self._allowed = self._stage_masks()

    @classmethod
    def load(cls, folder: Path | str, device: str = "cpu") -> "StageDecoder":
        """From a model folder that `train_lm` wrote. Raises InputError when it is none."""
        vocabulary = Vocabulary.load(Path(folder))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
        return cls(model, AutoTokenizer.from_pretrained(folder), vocabulary)

    def _stage_masks(self) -> torch.Tensor:
        """Additive mask [stages, rows of the output layer]: 0 where a stage may say a token, -inf elsewhere."""
        v = self.vocabulary
        rows = self.model.get_output_embeddings().weight.shape[0]
        allowed = torch.full((DONE + 1, rows), -torch.inf)
        tags = list(v.languages.values())
        text = [i for i in range(v.text_size) if i not in set(self.tokenizer.all_special_ids)]
        allowed[TRANSCRIPT_TAG, tags] = 0
        allowed[TRANSCRIPT, [*text, v.markers["translation"]]] = 0
        allowed[TRANSLATION_TAG, tags] = 0
        allowed[TRANSLATION, [*text, v.markers["target"]]] = 0
        allowed[UNITS, [*range(v.unit_offset, v.unit_offset + v.num_units), v.markers["end"]]] = 0
        allowed[DONE, v.markers["end"]] = 0
        return allowed.to(self.model.device)

    def prompt(self, units: np.ndarray) -> list[int]:
        """Token ids up to the point where the model begins to transcribe."""
        v = self.vocabulary
        if len(units) and int(units.max()) >= v.num_units:
            raise InputError(f"unit {int(units.max())} is outside the model's codebook of {v.num_units} units")
        begin = [] if v.begin is None else [v.begin]
        body = (units.astype(np.int64) + v.unit_offset).tolist()
        return [*begin, v.markers["source"], *body, v.markers["transcript"]]

    def translate(self, sources: Sequence[np.ndarray], settings: DecodeSettings) -> list[Translation]:
        """Translate the units of each source utterance; results in the order given."""
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        results: list[Translation] = [Translation() for _ in sources]
        for first in range(0, len(order), settings.batch):
            part = order[first : first + settings.batch]
            for i, result in zip(part, self._batch([sources[i] for i in part], settings), strict=True):
                results[i] = result
        return results

    @torch.inference_mode()
    def _batch(self, sources: Sequence[np.ndarray], settings: DecodeSettings) -> list[Translation]:
        device = self.model.device
        v = self.vocabulary
        prompts = [self.prompt(units) for units in sources]
        longest = max(map(len, prompts))
        count = len(prompts)
        ids = torch.zeros(count, longest, dtype=torch.long)
        mask = torch.zeros(count, longest, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        frames = torch.tensor([len(u) for u in sources], device=device)
        state = _State(count, frames, settings, device)
        cache = DynamicCache(config=self.model.config)
        generator = torch.Generator().manual_seed(settings.seed)
        rows = torch.arange(count, device=device)  # which utterance each row of the batch is
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        said: list[list[int]] = [[] for _ in sources]
        while len(rows):
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            token = self._choose(logits, state, rows, settings, generator)
            for row, t in zip(rows.tolist(), token.tolist(), strict=True):
                said[row].append(t)
            state.advance(rows, token, v)
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            keep = state.stage[rows] != DONE
            if not bool(keep.all()):
                kept = keep.nonzero().flatten()
                rows, ids, positions, mask = rows[kept], ids[kept], positions[kept], mask[kept]
                cache.batch_select_indices(kept)
        return [self._read(tokens, state, i) for i, tokens in enumerate(said)]

    def _choose(
        self,
        logits: torch.Tensor,
        state: "_State",
        rows: torch.Tensor,
        settings: DecodeSettings,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """The next token of each row: the most probable one that its stage allows; units may be sampled."""
        stage = state.stage[rows]
        logits = logits + self._allowed[stage]
        closing = self._closing(stage)
        over = state.left[rows] <= 0
        stuck = (stage == UNITS) & (state.repeats[rows] >= settings.repeat_limit)
        if bool(stuck.any()):
            logits[stuck.nonzero().flatten(), state.last[rows][stuck]] = -torch.inf
        log_probs = logits.log_softmax(-1)
        token = log_probs.argmax(-1)
        if settings.temperature > 0:
            speaking = (stage == UNITS).nonzero().flatten()
            if len(speaking):
                weights = (logits[speaking] / settings.temperature).softmax(-1)
                token[speaking] = torch.multinomial(weights.cpu(), 1, generator=generator)[:, 0].to(token.device)
        token = torch.where(over & (closing >= 0), closing, token)
        state.cut[rows] |= over & (closing >= 0)
        state.score[rows] += log_probs.gather(1, token[:, None])[:, 0]
        return token

    def _closing(self, stage: torch.Tensor) -> torch.Tensor:
        """The marker that ends each row's stage, -1 for a stage that has none."""
        markers = self.vocabulary.markers
        table = torch.tensor([-1, markers["translation"], -1, markers["target"], markers["end"], markers["end"]])
        return table.to(stage.device)[stage]

    def _read(self, tokens: list[int], state: "_State", row: int) -> Translation:
        v = self.vocabulary
        first, second = tokens.index(v.markers["translation"]), tokens.index(v.markers["target"])
        names = {i: language for language, i in v.languages.items()}
        units = [t - v.unit_offset for t in tokens[second + 1 :] if t != v.markers["end"]]
        return Translation(
            language=names[tokens[0]],
            transcript=self.tokenizer.decode(tokens[1:first]).strip(),
            translation=self.tokenizer.decode(tokens[first + 2 : second]).strip(),
            units=np.array(units, dtype=np.int64),
            complete=not bool(state.cut[row]),
            score=float(state.score[row]) / len(tokens),
        )


class _State:
    """Where each utterance of a batch stands: its stage, what is left of the stage's length, its last unit."""

    def __init__(self, count: int, frames: torch.Tensor, settings: DecodeSettings, device: torch.device) -> None:
        self.stage = torch.full((count,), TRANSCRIPT_TAG, device=device)
        self.text_limit = (frames / 50 * settings.text_per_second + 16).long()
        self.unit_limit = (frames * settings.units_per_frame + 50).long()
        self.left = self.text_limit.clone()
        self.last = torch.zeros(count, dtype=torch.long, device=device)
        self.repeats = torch.zeros(count, dtype=torch.long, device=device)
        self.cut = torch.zeros(count, dtype=torch.bool, device=device)
        self.score = torch.zeros(count, device=device)

    def advance(self, rows: torch.Tensor, token: torch.Tensor, vocabulary: Vocabulary) -> None:
        """Take note of the tokens that `rows` said."""
        stage, markers = self.stage[rows], vocabulary.markers
        self.repeats[rows] = torch.where(token == self.last[rows], self.repeats[rows] + 1, 1)
        self.last[rows] = token
        self.left[rows] -= 1
        new = stage.clone()
        new[stage == TRANSCRIPT_TAG] = TRANSCRIPT
        new[(stage == TRANSCRIPT) & (token == markers["translation"])] = TRANSLATION_TAG
        new[stage == TRANSLATION_TAG] = TRANSLATION
        new[(stage == TRANSLATION) & (token == markers["target"])] = UNITS
        new[(stage == UNITS) & (token == markers["end"])] = DONE
        self.stage[rows] = new
        started = rows[new != stage]
        limit = torch.where(self.stage[started] == UNITS, self.unit_limit[started], self.text_limit[started])
        self.left[started] = limit
