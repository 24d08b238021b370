"""Beam search over the transcript and the translation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from unitweave.config.translate import DecodingSettings
from unitweave.translate.cache import growing_cache
from unitweave.translate.constraints import DONE, TRANSCRIPT, TRANSCRIPT_TAG, TRANSLATION, TRANSLATION_TAG, State

if TYPE_CHECKING:
    from unitweave.translate.decode import StageDecoder


@torch.inference_mode()
def search_texts(
    decoder: "StageDecoder",
    sources: Sequence[np.ndarray],
    forced: Sequence[dict[int, list[int]]],
    settings: DecodingSettings,
) -> list[tuple[dict[int, list[int]], bool]]:
    """The best transcript and translation of each source, as tokens that decoding then has to say.

    Keeps settings.num_beams hypotheses of (language, transcript, translation) together, ranked by their
    log-probability; a finished one keeps its place. The answer is the finished hypothesis with the best
    log-probability / length ** length_penalty; with it goes whether a limit cut it off. What is `forced`
    already stays.
    """
    beam, text_only = settings.num_beams, DecodingSettings(**(vars(settings) | {"text_only": True}))
    ids, mask = decoder.begin(sources)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    state = State([len(s) for s in sources], forced, text_only, decoder.rules)
    cache = growing_cache(decoder.model.config)
    logits = decoder.step(ids, mask, positions, cache)
    device = logits.device
    every = torch.arange(len(sources), device=device).repeat_interleave(beam)  # one row for each hypothesis
    logits, mask, positions = logits[every], mask[every], positions[every, -1:]
    state.select(every)
    cache.batch_repeat_interleave(beam)
    total = torch.full((len(sources), beam), -torch.inf, device=device)
    total[:, 0] = 0.0  # all hypotheses are still the same one
    said = torch.zeros(len(every), 0, dtype=torch.long, device=device)
    owners = list(range(len(sources)))  # which source each group of rows is
    found: list[tuple[dict[int, list[int]], bool]] = [({}, False) for _ in sources]
    while owners:
        token, rows, log_prob, total = _extend(logits, state, total)
        state.select(rows)
        state.advance(token, log_prob)
        said = torch.cat([said[rows], token[:, None]], dim=1)
        mask = torch.cat([mask[rows], mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[rows] + 1
        done = (state.stage == DONE).view(-1, beam).all(1)
        kept = rows
        if bool(done.any()):
            for group in done.nonzero().flatten().tolist():
                found[owners[group]] = _best(state, said, total, group, beam, settings.length_penalty)
            groups = (~done).nonzero().flatten()
            owners = [owners[g] for g in groups.tolist()]
            total = total[groups]
            alive = (groups[:, None] * beam + torch.arange(beam, device=device)).flatten()
            state.select(alive)
            said, mask, positions, token, kept = said[alive], mask[alive], positions[alive], token[alive], rows[alive]
        cache.reorder_cache(kept)
        if owners:
            logits = decoder.step(token[:, None], mask, positions, cache)
    return found


def _extend(
    logits: torch.Tensor, state: State, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The next hypotheses: the token of each, the row that it goes on from, the token's log-probability, the totals."""
    groups, beam = total.shape
    log_probs, imposed = state.constrain(logits)
    size = log_probs.shape[1]
    choices = log_probs.clone()
    bound = (imposed >= 0).nonzero().flatten()
    choices[bound] = -torch.inf
    choices[bound, imposed[bound]] = log_probs[bound, imposed[bound]]
    # A finished hypothesis can only say <|end|>, with probability 1: it stays as it is.
    ranked = (total.view(-1, 1) + choices).view(groups, beam * size)
    best, place = ranked.topk(beam, dim=1)
    rows = (torch.arange(groups, device=total.device)[:, None] * beam + place // size).flatten()
    token = (place % size).flatten()
    # Beams that do not exist yet carry -inf; they have to say something that is allowed.
    dead = best.flatten() == -torch.inf
    token = torch.where(dead, choices[rows].argmax(1), token)
    return token, rows, choices[rows, token], best


def _best(
    state: State, said: torch.Tensor, total: torch.Tensor, group: int, beam: int, length_penalty: float
) -> tuple[dict[int, list[int]], bool]:
    """The best finished hypothesis of a group, as the tokens of each stage, and whether a limit cut it off."""
    stages = (TRANSCRIPT_TAG, TRANSCRIPT, TRANSLATION_TAG, TRANSLATION)
    rows = slice(group * beam, (group + 1) * beam)
    lengths = state.count[rows][:, list(stages)].sum(1)
    winner = group * beam + int((total[group] / lengths.float() ** length_penalty).argmax())
    tokens, counts = said[winner].tolist(), state.count[winner].tolist()
    found = {}
    for stage in stages:
        found[stage], tokens = tokens[: counts[stage]], tokens[counts[stage] :]
    return found, bool(state.cut[winner])
