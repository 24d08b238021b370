"""Decoding in stages: transcript, translation, units, each with the vocabulary of its stage enforced.

A model that was trained without the chain of thought says units alone.
A batch advances together, one token a step, with a key-value cache; rows may be in different stages, and a
row that ends leaves the batch. What an utterance gets does not depend on what it is batched with.
"""

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.sequences import deduplicate
from unitweave.lm.model.start import load_causal_lm
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.beam import search_texts
from unitweave.translate.cache import compact, growing_cache
from unitweave.translate.constraints import (
    DONE,
    STAGE_NAMES,
    TRANSLATION,
    UNITS,
    ForcedPrefix,
    Rules,
    State,
    Translation,
    in_a_loop,
)
from unitweave.translate.step_attention import use_step_attention

__all__ = ["DecodingSettings", "ForcedPrefix", "Listener", "StageDecoder", "Translation"]


class Listener(Protocol):
    """Told of what is decoded while it is decoded; `index` is the place of the source in the call."""

    def text(self, index: int, said: Translation) -> None:
        """Transcript and translation are complete (both empty where the model says no texts); units follow."""

    def unit(self, index: int, unit: int) -> None:
        """The next unit of the spoken translation."""


class StageDecoder:
    """A trained language model that translates units, in batches."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self.model, self.tokenizer, self.vocabulary = model.eval(), tokenizer, vocabulary
        rows = self.model.get_output_embeddings().weight.shape[0]
        self.rules = Rules(vocabulary, tokenizer, rows, self.model.device)

    @classmethod
    def load(
        cls, folder: Path | str, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "StageDecoder":
        """From a model folder that `train_lm` wrote.

        Raises InputError when it is none, and when none of the tasks that it was trained on ends in units.
        """
        vocabulary = Vocabulary.load(Path(folder))
        if not vocabulary.translates:
            raise InputError(
                f"{folder}: trained on {', '.join(vocabulary.tasks)} alone, this model does not translate speech into "
                "speech; tasks needs s2st or direct for that"
            )
        model, tokenizer = load_causal_lm(folder, dtype)
        use_step_attention(model.to(device))
        return cls(model, tokenizer, vocabulary)

    def prompt(self, units: np.ndarray) -> list[int]:
        """Token ids up to the point where the model begins to transcribe (or to speak, where it says no texts)."""
        v = self.vocabulary
        if len(units) and int(units.max()) >= v.num_units:
            raise InputError(f"unit {int(units.max())} is outside the model's codebook of {v.num_units} units")
        begin = [] if v.begin is None else [v.begin]
        if v.deduplicate:
            units, _ = deduplicate(units)
        body = (units.astype(np.int64) + v.unit_offset).tolist()
        return [*begin, v.markers["source"], *body, v.markers["transcript" if v.has_texts else "target"]]

    def translate(
        self,
        sources: Sequence[np.ndarray],
        settings: DecodingSettings,
        given: Sequence[ForcedPrefix | None] | None = None,
        listener: Listener | None = None,
    ) -> list[Translation]:
        """Translate the units (at 50 Hz) of each source utterance; results in the order given.

        given     transcript, translation or language of each source, where the caller knows better
        listener  told of texts and units as soon as they are decoded
        Raises InputError on units outside the codebook, unknown languages and impossible settings.
        """
        if settings.text_only and not self.vocabulary.has_texts:
            raise InputError(
                "decoding: text_only is not for this model, which goes from speech to speech without texts"
            )
        forced = [self.rules.forced(one) for one in given or [None] * len(sources)]
        order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
        results = [Translation() for _ in sources]
        for first in range(0, len(order), settings.batch_size):
            part = order[first : first + settings.batch_size]
            batch = _Batch(self, part, [sources[i] for i in part], [forced[i] for i in part], settings, listener)
            for i, result in zip(part, batch.run(), strict=True):
                results[i] = result
        return results

    def begin(self, sources: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts of a batch, padded on the left: ids and attention mask, int64 [batch, tokens]."""
        prompts = [self.prompt(units) for units in sources]
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        return ids.to(self.model.device), mask.to(self.model.device)

    def step(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
        """Logits [batch, vocabulary] of the token after `ids` [batch, tokens], which the cache takes in."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def read(self, tokens: Sequence[int]) -> Translation:
        """Take the tokens of one utterance apart: language, texts and units."""
        v = self.vocabulary
        if not v.has_texts:
            return Translation(units=np.array([t - v.unit_offset for t in tokens if t != v.markers["end"]], np.int64))
        first, second = tokens.index(v.markers["translation"]), tokens.index(v.markers["target"])
        names = {i: language for language, i in v.languages.items()}
        units = [t - v.unit_offset for t in tokens[second + 1 :] if t != v.markers["end"]]
        return Translation(
            language=names[tokens[0]],
            transcript=self.tokenizer.decode(tokens[1:first]).strip(),
            translation=self.tokenizer.decode(tokens[first + 2 : second]).strip(),
            units=np.array(units, dtype=np.int64),
        )


class _Batch:
    """One batch on its way through the stages."""

    def __init__(
        self,
        decoder: StageDecoder,
        indices: Sequence[int],
        sources: Sequence[np.ndarray],
        forced: Sequence[dict[int, list[int]]],
        settings: DecodingSettings,
        listener: Listener | None,
    ) -> None:
        self.decoder, self.settings, self.sources, self.forced = decoder, settings, sources, list(forced)
        self.indices, self.listener = indices, listener
        self.said: list[list[int]] = [[] for _ in sources]
        self.units: list[list[int]] = [[] for _ in sources]
        self.seconds = np.zeros((len(sources), DONE + 1))
        self.results: list[Translation] = [Translation() for _ in sources]
        # An utterance draws from its own stream of random numbers, so that its batch does not matter.
        self.random = [np.random.default_rng([settings.seed, zlib.crc32(s.astype("<i8").tobytes())]) for s in sources]

    @torch.inference_mode()
    def run(self) -> list[Translation]:
        decoder, settings = self.decoder, self.settings
        cut = self._search_texts() if settings.num_beams > 1 and decoder.vocabulary.has_texts else []
        ids, mask = decoder.begin(self.sources)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        state = State([len(s) for s in self.sources], self.forced, settings, decoder.rules)
        if cut:
            state.cut = torch.tensor(cut, device=state.cut.device)  # said again, the texts run into no limit
        if self.listener and not decoder.vocabulary.has_texts:
            for index in self.indices:
                self.listener.text(index, Translation())
        cache = growing_cache(decoder.model.config)
        rows = list(range(len(self.sources)))  # which utterance each row of the batch is
        while rows:
            start = time.monotonic()
            log_probs, imposed = state.constrain(decoder.step(ids, mask, positions, cache))
            token = self._choose(log_probs, imposed, state, rows)
            before = state.stage.tolist()
            state.advance(token, log_probs.gather(1, token[:, None])[:, 0])
            after = state.stage.tolist()
            said = token.tolist()
            self.seconds[rows, before] += (time.monotonic() - start) / len(rows)
            self._note(rows, said, before, after, state)
            ids, positions = token[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            if DONE in after:
                for i, stage in enumerate(after):
                    if stage == DONE:
                        self._finish(rows[i], state, i)
                places = compact([stage != DONE for stage in after])
                rows = [rows[i] for i in places]
                kept = torch.tensor(places, dtype=torch.long, device=mask.device)
                ids, positions, mask = ids[kept], positions[kept], mask[kept]
                state.select(kept)
                cache.batch_select_indices(kept)
        return self.results

    def _search_texts(self) -> list[bool]:
        """Impose the texts that a beam search finds; returns whether a limit cut each off."""
        start = time.monotonic()
        found = search_texts(self.decoder, self.sources, self.forced, self.settings)
        self.forced = [tokens for tokens, _ in found]
        self.seconds[:, TRANSLATION] += (time.monotonic() - start) / len(self.sources)
        return [was_cut for _, was_cut in found]

    def _choose(
        self, log_probs: torch.Tensor, imposed: torch.Tensor, state: State, rows: Sequence[int]
    ) -> torch.Tensor:
        """The next token of each row: the imposed one, or the most probable one; units may be sampled."""
        token = log_probs.argmax(-1)
        if self.settings.temperature > 0:
            speaking = (state.stage == UNITS).nonzero().flatten()
            if len(speaking):
                shares = (log_probs[speaking] / self.settings.temperature).softmax(-1).double().cumsum(-1)
                drawn = [self.random[rows[i]].random() for i in speaking.tolist()]
                at = torch.tensor(drawn, dtype=torch.double, device=shares.device)[:, None] * shares[:, -1:]
                token[speaking] = torch.searchsorted(shares, at, right=True)[:, 0].clamp(max=shares.shape[1] - 1)
        return torch.where(imposed >= 0, imposed, token)

    def _note(
        self, rows: Sequence[int], said: Sequence[int], before: Sequence[int], after: Sequence[int], state: State
    ) -> None:
        """Keep what was said, tell the listener, and end the utterances that turn in circles."""
        offset = self.decoder.vocabulary.unit_offset
        for i, row in enumerate(rows):
            self.said[row].append(said[i])
            if before[i] == TRANSLATION and after[i] != TRANSLATION and self.listener:
                self.listener.text(self.indices[row], self.decoder.read(self.said[row]))
            if before[i] == UNITS and after[i] == UNITS:
                self.units[row].append(said[i] - offset)
                if self.listener:
                    self.listener.unit(self.indices[row], said[i] - offset)
                if in_a_loop(self.units[row]):
                    state.left[i] = 0

    def _finish(self, row: int, state: State, place: int) -> None:
        result = self.decoder.read(self.said[row])
        score, count = state.score[place].tolist(), state.count[place].tolist()
        for name, stages in STAGE_NAMES.items():
            tokens = sum(count[s] for s in stages)
            if tokens:
                result.scores[name] = sum(score[s] for s in stages) / tokens
                result.seconds[name] = float(self.seconds[row, list(stages)].sum())
        result.score = sum(score) / max(1, sum(count))
        result.complete = not bool(state.cut[place])
        self.results[row] = result
