"""Beam search over the transcript and the translation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from unitweave.config.translate import DecodingSettings
from unitweave.translate.constraints import (
    DONE,
    TRANSCRIPT,
    TRANSCRIPT_TAG,
    TRANSLATION,
    TRANSLATION_TAG,
    DecoderState,
)
from unitweave.translate.language_model import UnitLanguageModel


@torch.inference_mode()
def search_texts(
    model: UnitLanguageModel,
    sources: Sequence[np.ndarray],
    forced: Sequence[dict[int, list[int]]],
    settings: DecodingSettings,
    wanted: Callable[[int], bool] = lambda source: True,
) -> list[tuple[dict[int, list[int]], bool]]:
    """Find the best transcript and translation of each source.

    Keeps settings.num_beams hypotheses of (language, transcript, translation) together, ranked by log-probability;
    a finished one keeps its place. The best one by log-probability / length ** length_penalty wins in the end.

    Args:
        model: The language model.
        sources: Units [frames] of each source.
        forced: Tokens that each source's phases have to begin with.
        settings: How to decode.
        wanted: Asked at each step; the search for a source that is no longer wanted ends there.

    Returns:
        For each source the tokens of each phase, and whether a limit cut them off.
    """
    beam, text_only = settings.num_beams, DecodingSettings(**(vars(settings) | {"text_only": True}))
    ids, mask, cache = model.begin(sources)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    state = DecoderState([len(s) for s in sources], forced, text_only, model.constraints)
    logits = model.step(ids, mask, positions, cache)[:, 0]
    device = logits.device
    every = torch.arange(len(sources), device=device).repeat_interleave(beam)  # one row for each hypothesis
    logits, mask, positions = logits[every], mask[every], positions[every, -1:]
    state.select(every)
    cache.batch_repeat_interleave(beam)
    total = torch.full((len(sources), beam), -torch.inf, device=device)
    # All hypotheses of a source are still the same one; only the first counts, or the beam would fill with copies.
    total[:, 0] = 0.0
    tokens = torch.zeros(len(every), 0, dtype=torch.long, device=device)
    owners = list(range(len(sources)))  # which source each group of rows is
    searched: list[tuple[dict[int, list[int]], bool]] = [({}, False) for _ in sources]
    while owners:
        token, rows, log_prob, total = _extend(logits, state, total)
        state.select(rows)
        state.advance(token, log_prob)
        tokens = torch.cat([tokens[rows], token[:, None]], dim=1)
        mask = torch.cat([mask[rows], mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[rows] + 1
        done = (state.phase == DONE).view(-1, beam).all(1)
        done |= torch.tensor([not wanted(owner) for owner in owners], device=device)
        kept = rows
        if bool(done.any()):
            for group in done.nonzero().flatten().tolist():
                searched[owners[group]] = _best(state, tokens, total, group, beam, settings.length_penalty)
            groups = (~done).nonzero().flatten()
            owners = [owners[g] for g in groups.tolist()]
            total = total[groups]
            alive = (groups[:, None] * beam + torch.arange(beam, device=device)).flatten()
            state.select(alive)
            tokens, mask, positions, token = tokens[alive], mask[alive], positions[alive], token[alive]
            kept = rows[alive]  # the cache has not moved yet: both moves at once
        cache.reorder_cache(kept)
        if owners:
            logits = model.step(token[:, None], mask, positions, cache)[:, 0]
    return searched


def _extend(
    logits: torch.Tensor, state: DecoderState, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The next hypotheses: the token of each, the row that it goes on from, the token's log-probability, the totals."""
    groups, beam = total.shape
    log_probs, forced = state.constrain(logits)
    size = log_probs.shape[1]
    choices = log_probs.clone()
    bound = (forced >= 0).nonzero().flatten()
    choices[bound] = -torch.inf
    choices[bound, forced[bound]] = log_probs[bound, forced[bound]]
    # A finished hypothesis can only go on with <|end|>, of probability 1: it stays as it is.
    ranked = (total.view(-1, 1) + choices).view(groups, beam * size)
    best, place = ranked.topk(beam, dim=1)
    rows = (torch.arange(groups, device=total.device)[:, None] * beam + place // size).flatten()
    token = (place % size).flatten()
    # Beams that do not exist yet carry -inf; their token has to be an allowed one all the same.
    dead = best.flatten() == -torch.inf
    token = torch.where(dead, choices[rows].argmax(1), token)
    return token, rows, choices[rows, token], best


def _best(
    state: DecoderState, tokens: torch.Tensor, total: torch.Tensor, group: int, beam: int, length_penalty: float
) -> tuple[dict[int, list[int]], bool]:
    """The best finished hypothesis of a group, as the tokens of each phase, and whether a limit cut it off."""
    phases = (TRANSCRIPT_TAG, TRANSCRIPT, TRANSLATION_TAG, TRANSLATION)
    rows = slice(group * beam, (group + 1) * beam)
    lengths = state.count[rows][:, list(phases)].sum(1)
    winner = group * beam + int((total[group] / lengths.float() ** length_penalty).argmax())
    left, counts = tokens[winner].tolist(), state.count[winner].tolist()
    best = {}
    for phase in phases:
        best[phase], left = left[: counts[phase]], left[counts[phase] :]
    return best, bool(state.cut[winner])
