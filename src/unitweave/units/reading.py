"""Batches of recordings, read and worked on in threads ahead of the caller."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from unitweave.core.audio import read_audio
from unitweave.units.front_end import FrontEnd
from unitweave.units.sampling import Recording

Batch = TypeVar("Batch")
Result = TypeVar("Result")


def read_features(front_end: FrontEnd, items: Sequence[Recording]) -> list[torch.Tensor]:
    """Read recordings and compute their features.

    Returns:
        Features float32 [length, width] of each recording.

    Raises:
        InputError: Names a file that cannot be read.
    """
    return front_end.extract([read_audio(item.audio, expected_seconds=item.seconds) for item in items])


def map_ordered(
    pool: ThreadPoolExecutor, work: Callable[[Batch], Result], batches: Iterable[Batch]
) -> Iterator[tuple[Batch, Result]]:
    """Apply `work` to batches in threads.

    Yields:
        Each batch with its result, in order. Only a few batches are worked on ahead, so memory stays bounded.
    """
    ahead: deque[tuple[Batch, Future[Result]]] = deque()
    for batch in batches:
        ahead.append((batch, pool.submit(work, batch)))
        if len(ahead) > 2 * pool._max_workers:
            first, future = ahead.popleft()
            yield first, future.result()
    while ahead:
        first, future = ahead.popleft()
        yield first, future.result()
