"""The codebook: centroids over one hidden layer of the speech encoder. Its training is in kmeans.py."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, file_digest, read_json, write_json
from unitweave.core.records import from_json
from unitweave.training.model_files import safetensors_errors

_ROWS_AT_ONCE = 4_096  # bounds the [rows, clusters] distance matrix
NOT_FINITE = "the encoder's hidden states are not finite numbers; its training has diverged, or its weights are damaged"
_FAR = 10.0  # deviations of a mean from 0 from which on it is subtracted


@dataclass(frozen=True)
class _Description:
    """The content of codebook.json."""

    layer: int
    encoder: str
    num_units: int
    fingerprint: str


@dataclass
class Codebook:
    """A k-means codebook.

    Attributes:
        centroids: float32 [clusters, hidden].
        layer: The encoder's hidden layer that they were fitted on, counted from 1.
        encoder: Fingerprint of that encoder.
        fingerprint: Digest of the saved centroids; empty until then.
    """

    centroids: torch.Tensor
    layer: int
    encoder: str
    fingerprint: str = ""

    @property
    def num_units(self) -> int:
        """Number of clusters."""
        return len(self.centroids)

    def assign(self, hidden: torch.Tensor) -> torch.Tensor:
        """Nearest centroid of each row of [rows, hidden]: int64 [rows]. Raises InputError for rows that have none."""
        index, distance = nearest(hidden, self.centroids)
        if not bool(torch.isfinite(distance).all()):
            raise InputError(f"units: {NOT_FINITE}")
        return index

    def save(self, folder: Path) -> None:
        """Write codebook.safetensors and codebook.json."""
        with atomic_path(Path(folder) / "codebook.safetensors") as temporary:
            save_file({"centroids": self.centroids.contiguous()}, temporary)
        self.fingerprint = file_digest(Path(folder) / "codebook.safetensors")
        about = _Description(self.layer, self.encoder, self.num_units, self.fingerprint)
        write_json(Path(folder) / "codebook.json", asdict(about))

    @classmethod
    def load(cls, folder: Path) -> "Codebook":
        """Read a codebook.

        Raises:
            InputError: It is missing or damaged.
        """
        path = Path(folder) / "codebook.safetensors"
        if not path.exists():
            raise InputError(f"{path}: no codebook; make one with 'unitweave units codebook'")
        description = Path(folder) / "codebook.json"
        about = from_json(_Description, read_json(description), description)
        if file_digest(path) != about.fingerprint:
            raise InputError(
                f"{path}: damaged, or not the centroids that codebook.json describes; make the codebook again"
            )
        with safetensors_errors(path):
            tensors = load_file(path)
        centroids = tensors.get("centroids")
        if centroids is None or centroids.ndim != 2 or len(centroids) != about.num_units:
            raise InputError(f"{path}: not the centroids of a codebook of {about.num_units} units")
        return cls(centroids, about.layer, about.encoder, about.fingerprint)


def nearest(rows: torch.Tensor, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the nearest centroid of each row, in bounded memory.

    Args:
        rows: float32 [rows, hidden].
        centroids: float32 [clusters, hidden].

    Returns:
        Index of the centroid int64 [rows] and squared distance to it float32 [rows].
    """
    shift = common_offset(centroids)
    centroids = centroids - shift
    norms = centroids.square().sum(1) / -2
    transposed = centroids.T
    indices, distances = [], []
    for chunk in rows.split(_ROWS_AT_ONCE):
        chunk = chunk - shift
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        best, index = torch.addmm(norms, chunk, transposed).max(dim=1)
        indices.append(index)
        distances.append((chunk.square().sum(1) - 2 * best).clamp_min(0))
    if not indices:
        return torch.empty(0, dtype=torch.long), torch.empty(0)
    return torch.cat(indices), torch.cat(distances)


def common_offset(rows: torch.Tensor) -> torch.Tensor:
    """What to subtract from rows before distances are taken in float32.

    A mean far from 0 leaves few digits to the differences between rows. Near 0 nothing is subtracted, so that the
    last digits do not depend on it.

    Args:
        rows: float32 or float16 [rows, hidden].

    Returns:
        float32 [hidden]: the mean of the rows where it lies more than 10 deviations from 0, else zeros.
    """
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    squares = 0.0
    for chunk in rows.split(_ROWS_AT_ONCE):
        total += chunk.sum(0, dtype=torch.float64)
        squares += float(chunk.float().square().sum(dtype=torch.float64))
    mean = total / max(len(rows), 1)
    size = float(mean.square().sum())
    far = size > _FAR**2 * (squares / max(len(rows), 1) - size)
    return mean.float() * far
