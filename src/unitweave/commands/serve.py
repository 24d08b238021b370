"""unitweave serve."""

from dataclasses import fields
from pathlib import Path

from unitweave.commands.base import Parser


def serve(arguments: list[str]) -> None:
    """unitweave serve MODEL"""
    import os
    import tempfile

    from unitweave.core.errors import InputError
    from unitweave.core.progress import say
    from unitweave.serve.batching import Limits
    from unitweave.training.devices import check_device

    parser = Parser(prog="unitweave serve", description="A page and an HTTP API for one model.")
    parser.add_argument("model", help="a run folder, an exported model, or the name of one on the hub (owner/name)")
    parser.add_argument("--system", help="which system of a run folder (default: scheduled, or the only one)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 for all (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--no-page", action="store_true", help="the HTTP API alone")
    parser.add_argument("--examples", type=Path, help="folder of recordings to click on")
    parser.add_argument("--bf16", action="store_true", help="the language model in bfloat16: faster")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--threads", type=int, help="CPU threads")
    for entry in fields(Limits):
        flag = "--" + entry.name.replace("_", "-")
        parser.add_argument(flag, type=type(entry.default), default=entry.default, help="limit (default: %(default)s)")
    known = parser.parse_args(arguments)
    limits = Limits(**{entry.name: getattr(known, entry.name) for entry in fields(Limits)})
    if any(value <= 0 for name, value in vars(limits).items() if name != "gather_seconds"):
        raise InputError("unitweave serve: a limit has to be more than 0")
    check_device(known.device, "--device")
    if not 0 <= known.port <= 65535:
        raise InputError(f"unitweave serve: --port {known.port} is not in 0..65535")
    try:
        import uvicorn

        from unitweave.serve.api import make_app
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}: pip install 'unitweave[serve]'") from None
    import torch

    from unitweave.translate.translator import Translator

    if known.threads:
        torch.set_num_threads(known.threads)
    dtype = torch.bfloat16 if known.bf16 else torch.float32
    translator = Translator.from_pretrained(known.model, known.system, known.device, dtype)
    app = make_app(translator, limits)
    with tempfile.TemporaryDirectory(prefix="unitweave-page-") as folder:
        if not known.no_page:
            os.environ["GRADIO_TEMP_DIR"] = folder  # what the page keeps for a while ends with the server
            os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
            try:
                from unitweave.serve.page import mount_page
            except ModuleNotFoundError as error:
                raise InputError(f"the page needs {error.name}: pip install 'unitweave[serve]', or --no-page") from None
            app = mount_page(
                app, "unitweave", example_files(translator.parts.examples() if translator.parts else [], known.examples)
            )
        address = f"http://{known.host}:{known.port}"
        say(f"unitweave: {address}/  API: /v1/translate and /v1/stream, described at {address}/docs")
        uvicorn.run(app, host=known.host, port=known.port, log_level="warning", timeout_keep_alive=10)


def example_files(own: list[Path], folder: Path | None) -> list[Path]:
    """Recordings to click on: those of a folder that the user names, or the model's own."""
    from unitweave.core.audio import SUFFIXES
    from unitweave.core.errors import InputError

    if folder is None:
        return own
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no recordings in this folder")
    return found[:6]
