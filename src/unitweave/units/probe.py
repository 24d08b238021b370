"""Which layer and how many units: k-means on every layer, and how well its units predict the characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unitweave.config.units import CodebookSettings
from unitweave.core.markdown import markdown_table
from unitweave.training.devices import resolve_device
from unitweave.units.codebook import nearest
from unitweave.units.encoder import load_encoder
from unitweave.units.inference import EncoderInference
from unitweave.units.kmeans import kmeans, perplexity
from unitweave.units.quality import Agreement
from unitweave.units.train_codebook import hidden_sample

_SAMPLE_BYTES = 2 * 2**30  # of hidden states in memory at once, over the layers of one pass


@dataclass(frozen=True)
class LayerQuality:
    """One row of the table. Inertia is relative: 1 would be a single cluster, so layers can be compared."""

    layer: int
    inertia: float
    dead: int
    perplexity: float
    agreement: Agreement


def probe_layers(
    corpus: Path, encoder: Path, settings: CodebookSettings, layers: Sequence[int] = ()
) -> list[LayerQuality]:
    """Fit a codebook on each layer (all of them where none is named) and measure it.

    k-means sees `settings.max_frames` frames of the train split; all but inertia and dead clusters are
    measured on as many of the dev split. Raises InputError when a layer does not exist.
    """
    model, vocabulary, front_end = load_encoder(encoder, resolve_device("auto"))
    inference = EncoderInference(model, front_end)
    wanted = sorted(set(layers)) or list(range(1, model.config.num_hidden_layers + 1))
    at_once = max(1, _SAMPLE_BYTES // (2 * 4 * settings.max_frames * model.config.hidden_size))
    rows = []
    for first in range(0, len(wanted), at_once):
        part = wanted[first : first + at_once]
        train = hidden_sample(inference, vocabulary, corpus, part, settings)
        dev = hidden_sample(inference, vocabulary, corpus, part, settings, "dev")
        for layer, seen, unseen in zip(part, train.hidden, dev.hidden, strict=True):
            result = kmeans(seen, settings.num_units, settings.seed, settings.max_iterations)
            spread = float((seen - seen.mean(0)).square().sum(1).double().mean())
            units = nearest(unseen, result.centroids)[0]
            used = torch.bincount(units, minlength=settings.num_units)
            rows.append(
                LayerQuality(
                    layer=layer,
                    inertia=result.inertia / spread,
                    dead=result.dead,
                    perplexity=perplexity(used),
                    agreement=Agreement.of(units, dev.characters),
                )
            )
    return rows


def as_table(rows: Sequence[LayerQuality]) -> str:
    """The rows as a markdown table."""
    heads = ["layer", "inertia", "dead clusters", "perplexity", "character purity", "normalized mutual information"]
    cells = (
        (row.layer, f"{row.inertia:.3f}", row.dead, f"{row.perplexity:.1f}", f"{row.agreement.purity:.3f}",
         f"{row.agreement.normalized_mutual_information:.3f}")
        for row in rows
    )  # fmt: skip
    return markdown_table(heads, cells, "r")
