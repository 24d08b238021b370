"""What the commands share: the run folder that they work on."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitweave.config.recipe import keep_recipe
from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout

if TYPE_CHECKING:
    from unitweave.pipeline import Run


def open_run(folder: Path, recipe: Path | str | None, overrides: dict[str, Any]) -> "Run":
    """A run folder, with flags in their places in its recipe. Torch is imported only when that has been checked."""
    checked = keep_recipe(folder, recipe, overrides)

    from unitweave.pipeline import Run

    return Run(folder, checked)


@contextlib.contextmanager
def begun_run(folder: Path, recipe: Path | str | None, overrides: dict[str, Any]) -> "Iterator[Run]":
    """`open_run`; where what the block does is refused before anything is made, no new folder is left."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    try:
        yield open_run(folder, recipe, overrides)
    except InputError:
        kept = RunLayout(folder).recipe
        if made and folder.is_dir() and list(folder.iterdir()) == [kept]:
            kept.unlink()
            with contextlib.suppress(OSError):  # another process puts something there
                for path in made:
                    path.rmdir()
        raise
