"""k-means for codebooks: Lloyd's algorithm on growing parts of the sample, deterministic, in bounded memory."""

from dataclasses import dataclass

import torch

from unitweave.core.errors import InputError
from unitweave.units.codebook import nearest

_DRAWN_AT_ONCE = 32  # starting centers between two updates of the distances, at most; few at first
_ROWS_A_CLUSTER = 32  # rows per cluster in the first part; each further part is twice as large


@dataclass
class KMeansResult:
    """What k-means found, and how good it is."""

    centroids: torch.Tensor  # [clusters, hidden]
    inertia: float  # mean squared distance of a row to its centroid
    dead: int  # clusters that no row belongs to
    perplexity: float  # e to the entropy of the cluster sizes: how many clusters are really used
    iterations: int


def kmeans(rows: torch.Tensor, clusters: int, seed: int, iterations: int = 25, tolerance: float = 1e-4) -> KMeansResult:
    """Lloyd's k-means from a k-means++ start; clusters that lose all rows move to the worst-served ones.

    The first passes see the first rows of a random order, and each part that has converged is doubled (after Newling
    and Fleuret's nested mini-batches, 2016): most of the way is made on few rows. Deterministic by seed on one device.

    Args:
        rows: float32 [rows, hidden]; with 64 bytes for each row and about 100 MB they are all that is in memory.
        clusters: How many centroids.
        seed: Of the random order and the start.
        iterations: Maximum passes over parts of the rows; the last is always over all of them.
        tolerance: A part is done when a pass lowers the inertia by less than this fraction.

    Raises:
        InputError: There are fewer rows than clusters.
    """
    if len(rows) < clusters:
        raise InputError(
            f"k-means needs at least as many frames as clusters (got {len(rows)} frames, {clusters} clusters)"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    start = max(10 * clusters, 4096)
    centroids = _starting_centers(rows[order[:start]], clusters, generator)
    parts = _part_sizes(len(rows), clusters)
    done = 0
    for number, size in enumerate(parts):
        part = rows if size == len(rows) else rows[order[:size]]
        # Every later part keeps at least one pass.
        centroids, used = _lloyd(part, centroids, max(1, iterations - done - (len(parts) - 1 - number)), tolerance)
        done += used
    index, distance = nearest(rows, centroids)
    sizes = torch.bincount(index, minlength=clusters)
    return KMeansResult(
        centroids=centroids,
        inertia=float(distance.double().mean()),
        dead=int((sizes == 0).sum()),
        perplexity=perplexity(sizes),
        iterations=done,
    )


def perplexity(sizes: torch.Tensor) -> float:
    """e to the entropy of cluster sizes [clusters]."""
    fraction = sizes[sizes > 0].double() / sizes.sum()
    return float(torch.exp(-(fraction * fraction.log()).sum()))


def _part_sizes(rows: int, clusters: int) -> list[int]:
    """Sizes of the growing parts; a copy of a part is never more than a quarter of the rows."""
    sizes = []
    size = _ROWS_A_CLUSTER * clusters
    while 4 * size <= rows:
        sizes.append(size)
        size *= 2
    return [*sizes, rows]


def _lloyd(rows: torch.Tensor, centroids: torch.Tensor, iterations: int, tolerance: float) -> tuple[torch.Tensor, int]:
    """Passes over the rows until the inertia stands still: centroids, number of passes."""
    previous = float("inf")
    for done in range(1, iterations + 1):
        index, distance = nearest(rows, centroids)
        sizes = torch.bincount(index, minlength=len(centroids))
        sums = torch.zeros_like(centroids).index_add_(0, index, rows)
        centroids = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):
            centroids[empty] = rows[distance.topk(len(empty)).indices]
        inertia = float(distance.double().mean())
        if len(empty) == 0 and previous - inertia <= tolerance * inertia:
            return centroids, done
        previous = inertia
    return centroids, iterations


def _starting_centers(rows: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007), several centers per round, drawn with squared distance as weight."""
    chosen = torch.randint(len(rows), (1,), generator=generator)
    norms = rows.square().sum(1)
    distance = torch.full_like(norms, torch.inf)
    new = chosen
    while True:
        apart = norms[:, None] + norms[new] - 2 * rows @ rows[new].T  # [rows, new]
        # Only the new centers can be nearer than the nearest of the earlier ones.
        distance = torch.minimum(distance, apart.min(dim=1).values).clamp_min(0)
        distance[chosen] = 0
        # Centers of one round are drawn without knowing of each other: few at first, when each one moves most
        # distances, then at most a sixteenth of those that there are.
        wanted = min(_DRAWN_AT_ONCE, clusters - len(chosen), max(1, len(chosen) // 16))
        if wanted == 0:
            return rows[chosen].clone()
        free = int((distance > 0).sum())
        if free < wanted:  # the rest of the rows are copies of centers: any will do
            weights = torch.ones_like(distance)
            weights[chosen] = 0
        else:
            weights = distance
        new = torch.multinomial(weights, wanted, generator=generator)
        chosen = torch.cat([chosen, new])
