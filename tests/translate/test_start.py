"""What `unitweave translate` imports: nothing that only training, scoring or serving need."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.serving import make_run, voice
from unitweave.core.layout import RunLayout

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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("start")
    run = make_run(folder / "run", text_lm_folder)
    soundfile.write(folder / "one.wav", voice(1.0), 16_000)
    return run


def printed(code: str, folder: Path) -> list[str]:
    """What a program prints that is run in a folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


UNNEEDED = {"accelerate", "sympy", "torch._dynamo", "torch.distributed.tensor"}
COMMAND = """
import sys
from unitweave.cli import main
sys.argv = ["unitweave", "translate", "run", "one.wav", "-o", {out!r}]
assert main({argv}) == 0
print("modules", *sorted({unneeded!r} & set(sys.modules)))
"""


@pytest.mark.slow
def test_a_translation_imports_no_compiler_and_is_the_same_with_it(run: Path) -> None:
    folder = run.parent
    alone = printed(COMMAND.format(out="alone", argv="", unneeded=UNNEEDED), folder)
    assert alone[-1] == "modules"
    in_a_program = printed(COMMAND.format(out="program", argv="sys.argv[1:]", unneeded=UNNEEDED), folder)
    assert {"torch._dynamo", "torch.distributed.tensor"} <= set(in_a_program[-1].split())
    for suffix in (".wav", ".en.srt", ".srt"):
        files = [folder / name / f"one{suffix}" for name in ("alone", "program")]
        assert files[0].exists() == files[1].exists()
        assert not files[0].exists() or files[0].read_bytes() == files[1].read_bytes()
    results = [json.loads((folder / name / "one.json").read_text()) for name in ("alone", "program")]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]


@pytest.mark.slow
def test_the_compiler_works_after_imports_without_it(tmp_path: Path) -> None:
    code = """
import sys, torch
from unitweave.core.imports import end_with_this_command, quick_imports
disable = torch.compiler.disable
end_with_this_command()
with quick_imports(only_decoding=True):
    import transformers.modeling_utils, transformers.masking_utils
assert torch.compiler.disable is disable and torch.distributed.is_available()
assert "torch._dynamo" not in sys.modules and "_dynamo" not in vars(torch)
import accelerate, scipy
with transformers.masking_utils.TransformGetItemToIndex():  # of the compiler: it is imported now
    pass
assert "torch._dynamo" in sys.modules
compiled = torch.compile(lambda x: x + 1, backend="eager")
print(compiled(torch.ones(1)).item())
from torch.distributed.tensor import DTensor
"""
    assert printed(code, tmp_path) == ["2.0"]


@pytest.mark.slow
def test_other_parts_of_the_compiler_are_imported_in_the_midst_of_it(tmp_path: Path) -> None:
    code = """
import sys
from unitweave.core.imports import end_with_this_command, quick_imports
end_with_this_command()
with quick_imports(only_decoding=True):
    import torch
    assert "torch._dynamo" not in sys.modules
    import torch._dynamo.config
    torch._dynamo.reset()
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex, trace_wrapped
modules = [sys.modules["torch._dynamo"], torch._dynamo, sys.modules["torch._dynamo.config"], torch._dynamo.config]
assert modules[0] is modules[1] and modules[2] is modules[3]
print(TransformGetItemToIndex.__module__)
"""
    assert printed(code, tmp_path) == ["torch._dynamo._trace_wrapped_higher_order_op"]


@pytest.mark.slow
def test_what_cannot_be_translated_is_refused_before_torch_is_imported(run: Path) -> None:
    folder = run.parent
    (folder / "text.wav").write_text("no sound")
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    cases = [
        (["translate", "run", "one.wav", "--target-language", "xx"], "target_language: must be one of"),
        (["translate", "run", "one.wav", "--language", "klingon"], "language: must be one of"),
        (["translate", "run", "text.wav"], "not readable as audio"),
        (["translate", "run", "silent.wav"], "silent"),
        (["translate", "run", "text.wav", "silent.wav"], "2 of 2 recordings could not be translated"),
        (["translate", "run", "one.wav", "--engine", "int8", "--bf16"], "engine int8 sets the precision itself"),
        (["translate", "run", "one.wav", "--engine", "int8", "--device", "cuda"], "engine int8 runs on the CPU"),
        (["serve", "run", "--examples", "nowhere"], "no recordings in this folder"),
        (["serve", "run", "--engine", "int8", "--bf16"], "engine int8 sets the precision itself"),
        (["live", "run", "--audio", "one.wav", "-o", "live", "--target-language", "xx"], "must be one of"),
    ]
    damaged = ("encoder/model/config.json", "encoder/model/vocab.json", "encoder/model/model.safetensors")
    damaged += ("codebook/codebook.json", "codebook/codebook.safetensors", "vocoder/model.safetensors")
    model = RunLayout(Path()).lm_model("scheduled")
    damaged += tuple(str(model / name) for name in ("config.json", "unitweave.json", "tokenizer.json"))
    for number, part in enumerate((*damaged, str(model / "model.safetensors"))):
        shutil.copytree(run, folder / f"damaged{number}")
        path = folder / f"damaged{number}" / part
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        cases.append((["translate", f"damaged{number}", "one.wav"], str(Path(f"damaged{number}") / part)))
    code = f"""
import contextlib, io, sys
from unitweave.cli import main
for arguments, expected in {cases!r}:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(arguments)
    if status != 2 or expected not in said.getvalue() or {{"torch", "transformers"}} & set(sys.modules):
        print(arguments, status, said.getvalue(), {{"torch", "transformers"}} & set(sys.modules))
        break
"""
    assert printed(code, folder) == []
