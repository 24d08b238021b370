"""Work on batches in threads, ahead of the caller and in order; what all stages that run the encoder share."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from unitweave.core.audio import read_audio
from unitweave.units.features import extract_features
from unitweave.units.recordings import Item

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def features_of(items: Sequence[Item]) -> list[torch.Tensor]:
    """Features [frames, 160] of each recording. Raises InputError, naming the file, where one can't be read."""
    return extract_features([read_audio(item.audio) for item in items])


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Batch], Result], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Result]]:
    """Each batch with what `work` makes of it, in order; a few batches are done ahead, so memory stays bounded."""
    ahead: deque[tuple[Batch, Future[Result]]] = deque()
    for batch in batches:
        ahead.append((batch, pool.submit(work, batch)))
        if len(ahead) > 2 * pool._max_workers:
            first, future = ahead.popleft()
            yield first, future.result()
    while ahead:
        first, future = ahead.popleft()
        yield first, future.result()


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
