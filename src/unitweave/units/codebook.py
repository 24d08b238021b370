"""The codebook: k-means centroids over one hidden layer of the speech encoder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, digest_of_file, read_json, write_json

_ROWS_AT_ONCE = 16_384  # bounds the [rows, clusters] distance matrix


@dataclass
class Codebook:
    """Centroids float32 [clusters, hidden] of hidden layer `layer` of the encoder with fingerprint `encoder`."""

    centroids: torch.Tensor
    layer: int
    encoder: str
    fingerprint: str = ""

    @property
    def num_units(self) -> int:
        """Number of clusters."""
        return len(self.centroids)

    def assign(self, hidden: torch.Tensor) -> torch.Tensor:
        """Nearest centroid of each row of [rows, hidden]: int64 [rows]."""
        return nearest(hidden, self.centroids)[0]

    def save(self, folder: Path) -> None:
        """Write codebook.safetensors and codebook.json."""
        with atomic_path(Path(folder) / "codebook.safetensors") as temporary:
            save_file({"centroids": self.centroids.contiguous()}, temporary)
        self.fingerprint = digest_of_file(Path(folder) / "codebook.safetensors")
        about = {
            "layer": self.layer,
            "encoder": self.encoder,
            "num_units": self.num_units,
            "fingerprint": self.fingerprint,
        }
        write_json(Path(folder) / "codebook.json", about)

    @classmethod
    def load(cls, folder: Path) -> "Codebook":
        """Read a codebook. Raises InputError when it is missing or damaged."""
        path = Path(folder) / "codebook.safetensors"
        if not path.exists():
            raise InputError(f"{path}: no codebook; make one with 'unitweave units codebook'")
        about = read_json(Path(folder) / "codebook.json")
        if digest_of_file(path) != about["fingerprint"]:
            raise InputError(f"{path}: the centroids are not the ones that codebook.json describes")
        return cls(load_file(path)["centroids"], about["layer"], about["encoder"], about["fingerprint"])


def nearest(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Index of and squared distance to the nearest centroid of each row; memory bounded."""
    norms = centroids.square().sum(1) / 2
    indices, distances = [], []
    for chunk in rows.split(_ROWS_AT_ONCE):
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        best, index = (chunk @ centroids.T - norms).max(dim=1)
        indices.append(index)
        distances.append((chunk.square().sum(1) - 2 * best).clamp_min(0))
    if not indices:
        return torch.empty(0, dtype=torch.long), torch.empty(0)
    return torch.cat(indices), torch.cat(distances)


@dataclass
class KMeansResult:
    """What k-means found, and how good it is."""

    centroids: torch.Tensor  # [clusters, hidden]
    inertia: float  # mean squared distance of a row to its centroid
    dead: int  # clusters that no row belongs to
    perplexity: float  # 2 ** entropy of the cluster sizes: how many clusters are really used
    iterations: int


def kmeans(rows: torch.Tensor, clusters: int, seed: int, iterations: int = 25, tolerance: float = 1e-4) -> KMeansResult:
    """Lloyd's k-means, started by k-means++ on a subsample; empty clusters move to the worst-served rows.

    rows  float32 [rows, hidden]. Deterministic by seed on one device. Raises InputError when there are
    fewer rows than clusters.
    """
    if len(rows) < clusters:
        raise InputError(f"k-means needs at least as many frames as clusters; there are {len(rows)} for {clusters}")
    generator = torch.Generator().manual_seed(seed)
    sample = rows[torch.randperm(len(rows), generator=generator)[: max(10 * clusters, 4096)]]
    centroids = _plus_plus(sample, clusters, generator)
    previous = float("inf")
    done = 0
    for done in range(1, iterations + 1):  # noqa: B007
        index, distance = nearest(rows, centroids)
        sizes = torch.bincount(index, minlength=clusters)
        sums = torch.zeros_like(centroids).index_add_(0, index, rows)
        centroids = sums / sizes.clamp_min(1)[:, None]
        empty = (sizes == 0).nonzero().flatten()
        if len(empty):
            centroids[empty] = rows[distance.topk(len(empty)).indices]
        inertia = float(distance.double().mean())
        if len(empty) == 0 and previous - inertia <= tolerance * inertia:
            break
        previous = inertia
    index, distance = nearest(rows, centroids)
    sizes = torch.bincount(index, minlength=clusters).double()
    share = sizes[sizes > 0] / sizes.sum()
    return KMeansResult(
        centroids=centroids,
        inertia=float(distance.double().mean()),
        dead=int((sizes == 0).sum()),
        perplexity=float(torch.exp(-(share * share.log()).sum())),
        iterations=done,
    )


def _plus_plus(rows: torch.Tensor, clusters: int, generator: torch.Generator) -> torch.Tensor:
    """k-means++ (Arthur and Vassilvitskii 2007): each next centre is drawn with the squared distance as weight."""
    first = int(torch.randint(len(rows), (1,), generator=generator))
    chosen = [first]
    norms = rows.square().sum(1)
    distance = (norms + norms[first] - 2 * rows @ rows[first]).clamp_min(0)
    for _ in range(1, clusters):
        weights = distance if distance.sum() > 0 else torch.ones_like(distance)
        pick = int(torch.multinomial(weights, 1, generator=generator))
        chosen.append(pick)
        distance = torch.minimum(distance, (norms + norms[pick] - 2 * rows @ rows[pick]).clamp_min(0))
    return rows[chosen].clone()
