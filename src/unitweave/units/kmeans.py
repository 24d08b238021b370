"""k-means for codebooks: Lloyd's algorithm on growing parts of the sample, deterministic, in bounded memory."""

import math
from dataclasses import dataclass

import torch

from unitweave.core.errors import InputError
from unitweave.units.codebook import NOT_FINITE, common_offset, nearest

_START_WORK = 1 << 38  # products and sums that the start may take, beyond those on 10 rows per cluster
_CHOSEN_AT_ONCE = 8  # starting centers between two draws of candidates, at most
_ROWS_AT_ONCE = 65_536
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
    """Lloyd's k-means from a greedy k-means++ start; clusters that lose all rows move to the worst-served ones.

    The first passes see the first rows of a random order, and each part that has converged is doubled (after Newling
    and Fleuret's nested mini-batches, 2016): most of the way is made on few rows. Deterministic by seed on one device.

    Args:
        rows: float32 or float16 [rows, hidden]. At most a quarter of their memory is taken for parts of them, and
            about 100 MB in addition.
        clusters: How many centroids.
        seed: Of the random order and the start.
        iterations: Maximum passes over parts of the rows; the last is always over all of them.
        tolerance: A part is done when a pass lowers the inertia by less than this fraction.

    Raises:
        InputError: There are fewer rows than clusters, or values that are not finite.
    """
    if len(rows) < clusters:
        raise InputError(
            f"k-means needs at least as many frames as clusters (got {len(rows)} frames, {clusters} clusters)"
        )
    if not all(bool(torch.isfinite(chunk).all()) for chunk in rows.split(_ROWS_AT_ONCE)):
        raise InputError(f"k-means: {NOT_FINITE}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    shift = common_offset(rows)
    affordable = _START_WORK // (2 * rows.shape[1] * clusters * _candidates(clusters))
    start = max(10 * clusters, 4096, min(affordable, len(rows) // 4))
    centroids = _starting_centers(rows[order[:start]].float().sub_(shift), clusters, generator) + shift
    parts = _part_sizes(len(rows), clusters)
    done = 0
    for number, size in enumerate(parts):
        part = rows if size == len(rows) else rows[order[:size]]
        # Every later part keeps at least one pass.
        centroids, used = _lloyd(
            part, centroids, shift, max(1, iterations - done - (len(parts) - 1 - number)), tolerance
        )
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


def _lloyd(
    rows: torch.Tensor, centroids: torch.Tensor, shift: torch.Tensor, iterations: int, tolerance: float
) -> tuple[torch.Tensor, int]:
    """Passes over the rows until the inertia stands still: centroids, number of passes."""
    previous = float("inf")
    for done in range(1, iterations + 1):
        index, distance = nearest(rows, centroids)
        sizes = torch.bincount(index, minlength=len(centroids))
        sums = torch.zeros_like(centroids)
        for own, chunk in zip(index.split(_ROWS_AT_ONCE), rows.split(_ROWS_AT_ONCE), strict=True):
            sums.index_add_(0, own, chunk - shift)
        centroids = sums / sizes.clamp_min(1)[:, None] + shift
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):
            # A cluster without rows begins again at a row that all centroids are far from.
            centroids[empty] = rows[distance.topk(len(empty)).indices].float()
        inertia = float(distance.double().mean())
        if len(empty) == 0 and previous - inertia <= tolerance * inertia:
            return centroids, done
        previous = inertia
    return centroids, iterations


def _candidates(clusters: int) -> int:
    """How many rows each starting center is chosen from."""
    return 2 + int(math.log(clusters))


def _starting_centers(rows: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007).

    Of several rows, drawn with their squared distance to the nearest center as weight, the one that lowers the sum of
    these distances most becomes the next center.

    Args:
        rows: float32 [rows, hidden], about 0.
        clusters: How many centers.
        generator: Of the draws.

    Returns:
        float32 [clusters, hidden].
    """
    norms = rows.square().sum(1)
    noise = norms * 1e-6  # of a distance that is 0
    chosen: list[int] = []
    distance = torch.full_like(norms, torch.inf)
    candidates, wanted = torch.randint(len(rows), (1,), generator=generator), 1
    while True:
        apart = (norms[:, None] + norms[candidates]).addmm_(rows, rows[candidates].T, alpha=-2)  # [rows, candidates]
        # Rounding leaves something of a row's distance to its own copies; drawn, they would become centers twice.
        apart.masked_fill_(apart <= noise[:, None], 0)
        for _ in range(wanted):
            torch.minimum(apart, distance[:, None], out=apart)
            best = int(apart.sum(0, dtype=torch.float64).argmin())
            chosen.append(int(candidates[best]))
            distance = apart[:, best].contiguous()
        left = clusters - len(chosen)
        if left and not bool(distance.any()):  # the rest of the rows are copies of centers: any will do
            weights = torch.ones_like(distance)
            weights[chosen] = 0
            chosen += torch.multinomial(weights, left, generator=generator).tolist()
            left = 0
        if not left:
            return rows[chosen].clone()
        # Several centers from one draw where it makes little difference: not the first ones, and not the last.
        wanted = max(1, min(_CHOSEN_AT_ONCE, len(chosen) // 16, left // 8))
        candidates = torch.multinomial(distance, wanted * _candidates(clusters), replacement=True, generator=generator)
