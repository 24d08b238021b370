"""unitweave rehearse."""

from pathlib import Path
from typing import Literal

from unitweave.config.recipe import find_recipe, load_with
from unitweave.core.errors import InputError
from unitweave.core.lock import locked

Part = Literal["corpus", "encoder", "codebook", "units", "text_lm", "lm", "vocoder", "translate", "export", "score"]


def rehearse(
    recipe: str,
    *,
    out: Path,
    size: Literal["full", "small"] = "full",
    lora: bool = False,
    again: list[Part] = [],  # noqa: B006
    json: bool = False,
) -> None:
    """Try every stage of a recipe for two steps, at its real shapes, and compare memory and tokens with its plans.

    The models have random weights, in the shapes and with the vocabularies of the recipe's pretrained ones; the corpus
    is a few synthesized sentences. Each training takes a step, writes a checkpoint, is killed, resumes, takes another
    step and is evaluated. Then units are extracted, utterances translated and scored, and the model is exported. On a
    GPU the batches are the recipe's, on a CPU one or two utterances. The same command resumes where it stopped. The
    exit code is 1 if a measurement differs by more than 15 % from its plan.

    Args:
        recipe: A YAML file, or the name of a built-in recipe.
        out: Folder of the rehearsal.
        size: full, or small for two narrow layers in each model: a trial of minutes on a laptop.
        lora: Train low-rank updates where the recipe trains all weights, for a machine with too little memory.
        again: Stages to do again, as after an update; those that read from them are kept.
        json: Print the report as JSON.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")
    path = find_recipe(recipe)
    load_with(path, {})

    from unitweave.rehearsal.rehearse import REPORT_FILE, Rehearsal, as_table

    with locked(out):
        rehearsal = Rehearsal(out, path, size, lora, again)
        rehearsal.all()
        rehearsal.finish()
    if json:
        print((out / REPORT_FILE).read_text(encoding="utf-8"), end="")
    else:
        print(as_table(rehearsal.steps, rehearsal.head["tokens"]))
    if not all(step.good for step in rehearsal.steps):
        raise SystemExit(1)
