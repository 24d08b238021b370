"""What the commands share: the run folder that they work on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitweave.config.recipe import keep_recipe

if TYPE_CHECKING:
    from unitweave.pipeline import Run


def open_run(folder: Path, recipe: Path | str | None, overrides: dict[str, Any]) -> "Run":
    """A run folder, with flags in their places in its recipe. Torch is imported only when that has been checked."""
    checked = keep_recipe(folder, recipe, overrides)

    from unitweave.pipeline import Run

    return Run(folder, checked)
