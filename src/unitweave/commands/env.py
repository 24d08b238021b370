"""unitweave env."""

import os

from unitweave.commands.base import Parser


def env(arguments: list[str]) -> None:
    """unitweave env: versions, threads and devices."""
    import platform

    import torch

    from unitweave.core.stage import versions
    from unitweave.training.trainer import use_bf16

    Parser(prog="unitweave env").parse_args(arguments)
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
