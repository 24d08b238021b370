"""Decoding in phases: transcript, translation, units, with the vocabulary of its phase enforced in each.

A batch advances together, one token a step, with a key-value cache; rows may be in different phases, and a
row that ends leaves the batch. What an utterance gets does not depend on what it is batched with.
"""

import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from transformers import DynamicCache

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.translate.beam import search_texts
from unitweave.translate.cache import compact
from unitweave.translate.constraints import (
    DONE,
    PHASE_NAMES,
    TRANSCRIPT,
    TRANSLATION,
    UNITS,
    Continuation,
    DecoderState,
    ForcedPrefix,
    Translation,
)
from unitweave.translate.language_model import UnitLanguageModel
from unitweave.translate.loops import in_a_loop
from unitweave.translate.prefix_cache import PrefixCache, keep

__all__ = ["ForcedPrefix", "PhaseDecoder", "Streamer", "Translation"]


class Streamer(Protocol):
    """Gets what is decoded while it is decoded; `index` is the place of the source in the call."""

    def texts(self, index: int, hypothesis: Translation) -> None:
        """Transcript and translation are complete (both empty for a model without texts); units follow."""

    def unit(self, index: int, unit: int) -> None:
        """The next unit of the spoken translation."""


Wanted = Callable[[int], bool]  # whether anybody waits for the source at this place of the call


class PhaseDecoder(UnitLanguageModel):
    """A trained language model that translates units, in batches."""

    def translate(
        self,
        sources: Sequence[np.ndarray],
        settings: DecodingSettings,
        prefixes: Sequence[ForcedPrefix | dict[int, list[int]] | None] | None = None,
        streamer: Streamer | None = None,
        kept: Sequence[PrefixCache | None] | None = None,
        wanted: Wanted | None = None,
    ) -> list[Translation]:
        """Translate the units of utterances.

        Args:
            sources: Units [frames] of each utterance.
            settings: How to decode.
            prefixes: Transcript, translation or languages of each source, where they are known; or the first tokens of
                phases, as `Constraints.forced` gives them.
            streamer: Gets texts and units as soon as they are decoded.
            kept: What earlier calls have computed for each source, in `Translation.cache`; given, it is kept again.
            wanted: Asked at each step; a source that is no longer wanted ends there, and gets an empty translation.

        Returns:
            A translation for each source, in their order.

        Raises:
            InputError: Units outside the codebook, an unknown language, or invalid settings.
        """
        if settings.text_only and not self.vocabulary.has_texts:
            raise InputError("decoding: text_only needs a model with texts; this one was trained without")
        given = prefixes or [None] * len(sources)
        default = settings.target_language
        forced = [prefix if isinstance(prefix, dict) else self.constraints.forced(prefix, default) for prefix in given]

        def run(part: list[int]) -> list[Translation]:
            batch = _Batch(self, part, [sources[i] for i in part], [forced[i] for i in part], settings, streamer)
            batch.kept, batch.wanted = [kept[i] for i in part] if kept is not None else None, wanted
            return batch.run()

        return _in_batches(sources, settings.batch_size, run)

    def continue_units(
        self,
        sources: Sequence[np.ndarray],
        continuations: Sequence[Continuation],
        settings: DecodingSettings,
        kept: Sequence[PrefixCache | None] | None = None,
        wanted: Wanted | None = None,
    ) -> list[Translation]:
        """Decode the next units of utterances whose texts are known; what is decoded already costs one step.

        Args:
            sources: Units [frames] of each utterance, at 50 Hz.
            continuations: Where each utterance stands.
            settings: How to decode.
            kept: As in `translate`.
            wanted: As in `translate`.

        Returns:
            For each source its texts and all its units, also those that were known. Scores are of the new ones.
        """

        def run(part: list[int]) -> list[Translation]:
            state = [continuations[i] for i in part]
            batch = _Batch(self, part, [sources[i] for i in part], [{} for _ in part], settings, None, state)
            batch.kept, batch.wanted = [kept[i] for i in part] if kept is not None else None, wanted
            return batch.run()

        return _in_batches(sources, settings.batch_size, run)


def _check_numbers(state: DecoderState, place: int) -> None:
    """Raise InputError where the model's logits were no numbers: what was decoded from them means nothing."""
    if bool(state.score[place].isnan().any()):
        raise InputError("the language model's weights are damaged: it computes NaN; train it or fetch it again")


def _in_batches(
    sources: Sequence[np.ndarray], batch_size: int, run: Callable[[list[int]], list[Translation]]
) -> list[Translation]:
    """Batches of sources of similar length; the results in the sources' order."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    results = [Translation() for _ in sources]
    for first in range(0, len(order), batch_size):
        part = order[first : first + batch_size]
        for i, result in zip(part, run(part), strict=True):
            results[i] = result
    return results


class _Batch:
    """One batch on its way through the phases."""

    def __init__(
        self,
        decoder: PhaseDecoder,
        indices: Sequence[int],
        sources: Sequence[np.ndarray],
        forced: Sequence[dict[int, list[int]]],
        settings: DecodingSettings,
        streamer: Streamer | None,
        continuations: Sequence[Continuation] | None = None,
    ) -> None:
        self.decoder, self.settings, self.sources, self.forced = decoder, settings, sources, list(forced)
        self.indices, self.streamer = indices, streamer
        self.continuations = continuations
        self.kept: list[PrefixCache | None] | None = None
        self.wanted: Wanted | None = None
        known = continuations or [Continuation((), (), 0)] * len(sources)
        offset = decoder.vocabulary.unit_offset
        self.units: list[list[int]] = [list(one.units) for one in known]
        self.tokens: list[list[int]] = [[*one.texts, *(unit + offset for unit in one.units)] for one in known]
        self.seconds = np.zeros((len(sources), DONE + 1))
        self.results: list[Translation] = [Translation() for _ in sources]
        # An utterance draws from its own stream of random numbers, so that its batch does not matter.
        seeds = [[settings.seed, zlib.crc32(source.astype("<i8").tobytes())] for source in sources]
        if continuations:
            seeds = [[*seed, len(one.units)] for seed, one in zip(seeds, continuations, strict=True)]
        self.random = [np.random.default_rng(seed) for seed in seeds]

    @torch.inference_mode()
    def run(self) -> list[Translation]:
        decoder, settings = self.decoder, self.settings
        searched = settings.num_beams > 1 and decoder.vocabulary.has_texts and not self.continuations
        cut = self._search_texts() if searched else []
        ids, mask, cache = decoder.begin(self.sources, self.tokens, self.kept, graphs=True)
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        state = DecoderState([len(s) for s in self.sources], self.forced, settings, decoder.constraints)
        if self.continuations:
            units = [[u + decoder.vocabulary.unit_offset for u in units] for units in self.units]
            state.resume(units, [one.min_total for one in self.continuations])
        if cut:
            state.cut = torch.tensor(cut, device=state.cut.device)  # repeated as a forced text, it runs into no limit
        if self.streamer and not decoder.vocabulary.has_texts:
            for index in self.indices:
                self.streamer.texts(index, Translation())
        rows = list(range(len(self.sources)))  # which utterance each row of the batch is
        guess, logits = ids[:, :0], deque[torch.Tensor]()
        while rows:
            start = time.monotonic()
            before = state.phase.tolist()
            if not logits:
                # What was decoded last time is read together, and kept as far as it would be decoded again.
                guess = self._guess(rows).to(ids.device)
                more = guess.shape[1]
                mask = torch.cat([mask, mask.new_ones(len(rows), more)], dim=1)
                at = torch.cat([positions, positions[:, -1:] + torch.arange(1, more + 1, device=ids.device)], dim=1)
                output = decoder.step(torch.cat([ids, guess], dim=1), mask, at, cache, before, 1 + more)
                logits.extend(output.unbind(1))
            log_probs, forced = state.constrain(logits.popleft())
            token = self._choose(log_probs, forced, state, rows)
            state.advance(token, log_probs.gather(1, token[:, None])[:, 0])
            after = state.phase.tolist()
            self.seconds[rows, before] += (time.monotonic() - start) / len(rows)
            self._record(rows, token.tolist(), before, after, state)
            after = state.phase.tolist() if self.continuations else after
            gone = [i for i, row in enumerate(rows) if not self._is_wanted(row)]
            for i in gone:
                after[i] = DONE
            ids, positions = token[:, None], positions[:, -1:] + 1
            if logits and DONE not in after and bool((guess[:, -len(logits)] == token).all()):
                continue
            if logits:
                mask[:, -len(logits) :] = 0  # guessed wrongly
                logits.clear()
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            if DONE in after:
                # Finished rows leave the batch, so that no step is computed for them.
                for i, phase in enumerate(after):
                    if phase == DONE and i not in gone:
                        self._finish(rows[i], state, i)
                        self._keep(rows[i], cache, i, mask[i, :-1])
                places = compact([phase != DONE for phase in after])
                rows = [rows[i] for i in places]
                kept = torch.tensor(places, dtype=torch.long, device=mask.device)
                ids, positions, mask = ids[kept], positions[kept], mask[kept]
                state.select(kept)
                cache.batch_select_indices(kept)
        return self.results

    def _is_wanted(self, row: int) -> bool:
        return self.wanted is None or self.wanted(self.indices[row])

    def _guess(self, rows: Sequence[int]) -> torch.Tensor:
        """Texts that may follow each row, int64 [rows, tokens], as many as there are for all of them."""
        closing, kept = self.decoder.constraints.closing, self.kept or []
        found: list[tuple[int, ...]] = [()]
        if kept and not self.continuations:
            ends = int(closing[TRANSCRIPT]), int(closing[TRANSLATION])
            found = [one.guess(self.tokens[row], *ends) if (one := kept[row]) else () for row in rows]
        length = min(map(len, found))
        return torch.tensor([one[:length] for one in found] if length else [[]] * len(rows), dtype=torch.long)

    def _keep(self, row: int, cache: DynamicCache, place: int, mask: torch.Tensor) -> None:
        """Keep what was computed for a row, where that is wanted."""
        if self.kept is not None:
            tokens = [*self.decoder.prompt(self.sources[row]), *self.tokens[row]]
            self.results[row].cache = keep(cache, place, mask, tokens, self.tokens[row])

    def _search_texts(self) -> list[bool]:
        """Force the texts that a beam search finds; returns whether a limit cut each off."""
        start = time.monotonic()
        searched = search_texts(self.decoder, self.sources, self.forced, self.settings, self._is_wanted)
        self.forced = [tokens for tokens, _ in searched]
        self.seconds[:, TRANSLATION] += (time.monotonic() - start) / len(self.sources)
        return [was_cut for _, was_cut in searched]

    def _choose(
        self, log_probs: torch.Tensor, forced: torch.Tensor, state: DecoderState, rows: Sequence[int]
    ) -> torch.Tensor:
        """The next token of each row: the forced one, or the most probable one; units may be sampled."""
        token = log_probs.argmax(-1)
        if self.settings.temperature > 0:
            sampled = (state.phase == UNITS).nonzero().flatten()
            if len(sampled):
                cumulated = (log_probs[sampled] / self.settings.temperature).softmax(-1).double().cumsum(-1)
                drawn = [self.random[rows[i]].random() for i in sampled.tolist()]
                at = torch.tensor(drawn, dtype=torch.double, device=cumulated.device)[:, None] * cumulated[:, -1:]
                token[sampled] = torch.searchsorted(cumulated, at, right=True)[:, 0].clamp(max=cumulated.shape[1] - 1)
        return torch.where(forced >= 0, forced, token)

    def _record(
        self,
        rows: Sequence[int],
        tokens: Sequence[int],
        before: Sequence[int],
        after: Sequence[int],
        state: DecoderState,
    ) -> None:
        """Keep the tokens, pass them on to the streamer, and end the utterances that are in a loop."""
        offset = self.decoder.vocabulary.unit_offset
        for i, row in enumerate(rows):
            self.tokens[row].append(tokens[i])
            texts_end = before[i] == TRANSLATION and after[i] != TRANSLATION
            if self.streamer and (texts_end or (before[i] == TRANSCRIPT and after[i] == DONE)):
                _check_numbers(state, i)
                self.streamer.texts(self.indices[row], self.decoder.read(self.tokens[row]))
            if before[i] == UNITS and after[i] == UNITS:
                self.units[row].append(tokens[i] - offset)
                if self.streamer:
                    self.streamer.unit(self.indices[row], tokens[i] - offset)
                if in_a_loop(self.units[row], self.decoder.vocabulary.frame_rate):
                    state.remaining[i] = 0  # the closing marker comes next, and the row counts as cut off
                elif self.continuations and len(self.units[row]) == self._pause_at(row):
                    state.phase[i] = DONE

    def _pause_at(self, row: int) -> int:
        assert self.continuations is not None
        return len(self.continuations[row].units) + self.continuations[row].max_units

    def _finish(self, row: int, state: DecoderState, place: int) -> None:
        _check_numbers(state, place)
        result = self.decoder.read(self.tokens[row])
        score, count = state.score[place].tolist(), state.count[place].tolist()
        for name, phases in PHASE_NAMES.items():
            tokens = sum(count[p] for p in phases)
            if tokens:
                result.scores[name] = sum(score[p] for p in phases) / tokens
                result.seconds[name] = float(self.seconds[row, list(phases)].sum())
        result.score = sum(score) / max(1, sum(count))
        result.complete = not bool(state.cut[place])
        result.tokens = self.tokens[row]
        result.ended = not self.continuations or self.tokens[row][-1:] == [self.decoder.vocabulary.markers["end"]]
        self.results[row] = result
