"""What can be known of a language model's training before anything that comes before it is done."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.interleaving.schedule import text_ratio
from unitweave.lm.data.dataset import read_extra_text

if TYPE_CHECKING:  # what a path or a schedule alone tells is said without torch
    from transformers import PretrainedConfig

_TRIED_PARAMETERS = 1_000_000_000  # loaded within seconds; a larger model is refused when its own turn comes


def check_system(settings: LmSettings, num_units: int) -> None:
    """Raise InputError for what the fine-tuning of a system would refuse.

    Args:
        settings: The system's settings.
        num_units: Size of the codebook that the units will have.
    """
    text_ratio(settings.schedule, settings.training.steps)
    if settings.extra_text is not None:
        read_extra_text(Path(settings.extra_text))
    if settings.training.deepspeed is not None and not Path(settings.training.deepspeed).is_file():
        raise InputError(f"training.deepspeed {settings.training.deepspeed}: no such file")
    if settings.pretrained is not None:
        from unitweave.lm.model.start import check_loadable, earlier_vocabulary
        from unitweave.lm.train.finetune import token_limit
        from unitweave.lm.train.packed import check_logits

        config = check_loadable(settings.pretrained)
        earlier_vocabulary(settings.pretrained, num_units, None, settings.deduplicate)
        token_limit(settings.max_tokens, config)
        if settings.training.cross_entropy == "chunked":
            check_logits(config)
        if settings.lora is not None and settings.lora.target_modules:
            _check_modules(settings.lora.target_modules, config)
    if (backend := settings.training.torch_compile_backend) is not None:
        check_compile_backend(backend, "training.torch_compile_backend")


def try_packing(name: str, cross_entropy: Literal["chunked", "plain"]) -> None:
    """Refuse a causal LM that cannot be trained on packed rows; one of more than a billion parameters is not tried.

    Args:
        name: A model that `check_system` has passed.
        cross_entropy: As in the settings of training.

    Raises:
        InputError: The model does not keep packed sequences apart, or changes its logits where that is not possible.
    """
    from unitweave.lm.estimate import count_weights
    from unitweave.lm.model.start import load_causal_lm, load_config
    from unitweave.lm.train.packed import PackedTraining
    from unitweave.training.trainer import quiet_transformers

    quiet_transformers()
    config = load_config(name)
    if count_weights(config, config.get_text_config().vocab_size).total <= _TRIED_PARAMETERS:
        PackedTraining(load_causal_lm(name)[0], cross_entropy)


def check_repetitions(settings: LmSettings, units: Mapping[str, str]) -> None:
    """Raise InputError where a system wants repeated units, and the units (their metadata) were imported without."""
    if units.get("deduplicated") and not settings.deduplicate:
        raise InputError("lm.deduplicate: set it to true; the units were imported without repetitions")


def check_compile_backend(backend: str, setting: str) -> None:
    """Raise InputError where torch cannot compile with this backend here; `setting` says whose it is."""
    import torch

    known = torch.compiler.list_backends()
    if backend not in known:
        raise InputError(f"{setting}: must be one of {', '.join(known)} (got {backend!r})")
    compiler = os.environ.get("CXX") or "g++"  # as inductor looks for it
    if backend == "inductor" and not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise InputError(f"{setting}: no C++ compiler {compiler}; install one, or let CXX name it")


def _check_modules(names: list[str], config: "PretrainedConfig") -> None:
    """Raise InputError where none of the names is one of the model's layers, as peft matches them."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    paths = [path for path, _ in model.named_modules()]
    if not any(path == name or path.endswith(f".{name}") for path in paths for name in names):
        raise InputError(f"lora.target_modules: the model has no layers named {', '.join(names)}")
