"""The recipe of a rehearsal: the given one's shapes, two steps of each training, a corpus of a few sentences."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unitweave.config.lm import LmSettings
from unitweave.config.recipe import Recipe, merged
from unitweave.core.files import json_digest, read_json_object

STEPS = 2
LORA = {"rank": 64}


def chosen_systems(recipe: Recipe) -> dict[str, LmSettings]:
    """One system of each kind of model: those that differ in schedule or data alone take the same memory."""
    kinds: dict[object, str] = {}
    for name, system in recipe.systems.items():
        kinds[system.pretrained, str(system.lora), system.deduplicate, system.trim_vocabulary] = name
    return {name: recipe.systems[name] for name in kinds.values()}


def rehearsal_recipe(
    content: Mapping[str, Any], recipe: Recipe, models: Path, whole_batches: bool, lora: bool, small: bool
) -> dict[str, Any]:
    """The content of the rehearsal's recipe.yaml.

    Args:
        content: Of the given recipe.
        recipe: The same, checked.
        models: Folder of the checkpoints of random weights: encoder, and one for each pretrained LM.
        whole_batches: Keep the recipe's batches, as on a GPU; else they are cut to one or two utterances.
        lora: Train low-rank updates where the recipe trains all weights.
        small: Make the models narrow: two layers each.
    """
    embedded = recipe.corpus.embedded
    seconds = recipe.encoder.batch_seconds if whole_batches else 6.0
    units = recipe.codebook.num_units
    # Enough recordings, of two seconds and more each, for a batch and for a frame of each unit.
    pairs = max(16, math.ceil(units / 200), round(seconds / 2.5) if whole_batches else 0)
    training = {"steps": STEPS, "save_steps": 1, "warmup_ratio": 0.0, "dataloader_num_workers": 0, "logging_steps": 1}
    one_batch = {} if whole_batches else {"gradient_accumulation_steps": 1}
    encoder: dict[str, Any] = {
        "batch_seconds": seconds,
        "eval_steps": STEPS,
        "eval_recordings": 1,
        "early_stopping_patience": 0,
        "training": training | one_batch,
    }
    if recipe.encoder.pretrained:
        encoder["pretrained"] = str(models / "encoder")
    layer = min(recipe.codebook.layer, 2) if small and recipe.encoder.pretrained else recipe.codebook.layer
    changes: dict[str, Any] = {
        "encoder": encoder,
        "codebook": {
            "layer": layer,
            "max_frames": max(units, 3000),
            "max_iterations": 1,
        },
        # Word times of the recipe's own corpus: here an encoder makes them.
        "units": {"shard_size": 8, "backend": "local", "alignments": None},
        "text_lm": {"extra_sentences": 0, "copy_task_steps": 0, "training": _lm_training(training, whole_batches)},
        "vocoder": {
            "training": {"steps": STEPS, "save_steps": 1} | ({} if whole_batches else {"batch_size": 2}),
            # Ours belongs to the codebook that it was trained on, which is not that of the rehearsal.
            **({"pretrained": None} if _is_ours(recipe.vocoder.pretrained) else {}),
            # The discriminators come in at the second step.
            **({"adversarial_start_step": 1} if recipe.vocoder.adversarial_start_step is not None else {}),
        },
        "translate": {"max_units_per_frame": 0.1, "max_text_tokens_per_second": 1.0},
        "score": {"mos": [], "bootstrap_samples": 10, "randomization_trials": 10, "examples": 1},
    }
    if small:
        narrow = {"hifigan_channels": 32, "discriminator_channels": 2, "dim": 32, "intermediate_dim": 64, "layers": 1}
        changes["vocoder"] |= narrow
    made = merged(content, changes)
    made["corpus"] = {
        "embedded": {"languages": embedded.languages[:1] if embedded else ["es"], "train": pairs, "dev": 2, "test": 2}
    }
    shared, by_system = content.get("lm") or {}, content.get("systems") or {}
    made["lm"] = {}
    made["systems"] = {
        name: merged(merged(shared, by_system.get(name) or {}), _system(system, models, training, whole_batches, lora))
        for name, system in chosen_systems(recipe).items()
    }
    return made


def _system(
    system: LmSettings, models: Path, training: Mapping[str, Any], whole_batches: bool, lora: bool
) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "training": _lm_training(training, whole_batches) | {"report_to": []},
        "evaluation": {"eval_steps": STEPS, "utterances": 1, "examples": 0},
        "interleave": {"min_alignment_score": 0.0},  # random weights align no word with any certainty
        # The second step is on units alone, the longest sequences that the training sees.
        "schedule": {"shape": "points", "unit": "steps", "points": [[0, 0.9], [1, 0.0]], "function": None},
    }
    if system.pretrained:
        changes["pretrained"] = str(models / model_name(system.pretrained))
    if lora and system.lora is None:
        changes["lora"] = LORA
    return changes


def _is_ours(vocoder: str | None) -> bool:
    """Whether it is the folder of a vocoder that unitweave trained."""
    config = Path(vocoder or "") / "config.json"
    return vocoder is not None and config.is_file() and "generator" in read_json_object(config)


def _lm_training(training: Mapping[str, Any], whole_batches: bool) -> dict[str, Any]:
    cut = {} if whole_batches else {"batch_size": 2, "gradient_accumulation_steps": 1}
    return dict(training) | {"fsdp": False, "deepspeed": None} | cut


def model_name(pretrained: str) -> str:
    """The folder of the stand-in of a pretrained LM."""
    return f"{Path(pretrained).name}-{json_digest(pretrained)[:8]}"
