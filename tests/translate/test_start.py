"""What `unitweave translate` imports: nothing that only training, scoring or serving need."""

import subprocess
import sys

import pytest

HEAVY = (
    "datasets", "fastapi", "gradio", "jiwer", "matplotlib", "pandas", "peft", "ray", "sacrebleu", "sklearn",
    "tensorboard", "transformers.trainer", "unitweave.training.trainer",
)  # fmt: skip


@pytest.mark.slow
def test_translating_imports_no_library_of_other_stages() -> None:
    code = (
        "import sys, unitweave.commands.translate, unitweave.translate.files, unitweave.training.devices\n"
        f"print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
