"""The codebook: centroids over one hidden layer of the speech encoder. Its training is in kmeans.py."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, digest_of_file, read_json, write_json

_ROWS_AT_ONCE = 4_096  # bounds the [rows, clusters] distance matrix


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
    norms = centroids.square().sum(1) / -2
    transposed = centroids.T
    indices, distances = [], []
    for chunk in rows.split(_ROWS_AT_ONCE):
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        best, index = torch.addmm(norms, chunk, transposed).max(dim=1)
        indices.append(index)
        distances.append((chunk.square().sum(1) - 2 * best).clamp_min(0))
    if not indices:
        return torch.empty(0, dtype=torch.long), torch.empty(0)
    return torch.cat(indices), torch.cat(distances)
