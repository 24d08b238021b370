"""`unitweave serve`: a model, its page and its API, put together, served and cleaned up."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from starlette.types import ASGIApp

from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports
from unitweave.core.progress import echo
from unitweave.serve.api import make_app
from unitweave.serve.batching import Batcher
from unitweave.serve.examples import find_examples
from unitweave.serve.security import Access, protect
from unitweave.serve.server import bind, log_requests, make_server, run_server
from unitweave.training.devices import share_freed_memory
from unitweave.translate.package import Parts
from unitweave.translate.translator import Translator


@dataclass
class Service:
    """What to serve, where, and to whom."""

    parts: Parts
    host: str = "127.0.0.1"
    port: int = 7860
    allowed_host: list[str] = field(default_factory=list)
    token: str | None = None
    allow_anonymous: bool = False
    no_page: bool = False
    examples: Path | None = None
    bf16: bool = False
    engine: str | None = None
    device: str = "cpu"
    threads: int | None = None


def serve_model(service: Service, limits: ServerLimits) -> None:
    """Serve a model until SIGINT or SIGTERM.

    Raises:
        InputError: A setting, the model, the address or an installed package does not allow it.
    """
    token = service.token
    listener = bind(service.host, service.port)
    share_freed_memory()
    try:
        if service.threads:
            torch.set_num_threads(service.threads)
        dtype = torch.bfloat16 if service.bf16 else torch.float32
        translator = Translator.from_parts(service.parts, service.device, dtype, service.engine)
        own = service.parts.examples()
        examples = own if service.examples is None else find_examples(service.examples)
        access = Access(service.host, service.allowed_host, token)
        with _temporary_folder() as root:
            # Recordings that are being decoded at the end lie there too: their threads do not live to delete them.
            folder = root / "page"
            folder.mkdir()
            app, _ = build_app(translator, limits, access, None if service.no_page else folder, examples)
            log_requests()
            host = f"[{service.host}]" if ":" in service.host else service.host
            address = f"http://{host}:{listener.getsockname()[1]}"
            echo(f"unitweave: {address}/  API: /v1/translate, /v1/stream and /v1/live, described at {address}/docs")
            run_server(make_server(app, limits.max_connections), listener)
    finally:
        listener.close()


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for all temporary files of this process, which goes with all that is in it."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="unitweave-serve-", ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def build_app(
    translator: Translator,
    limits: ServerLimits,
    access: Access,
    page_folder: Path | None = None,
    examples: Sequence[Path] = (),
) -> tuple[ASGIApp, Batcher]:
    """The protected application, with a page if it gets a folder for that page's recordings, and its batcher."""
    app = make_app(translator, limits)
    if page_folder is not None:
        # Where gradio puts the speech that it plays. It makes this folder when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = str(page_folder.resolve())
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        try:
            with quick_imports():
                from unitweave.serve.page import mount_page
        except ModuleNotFoundError as error:
            raise InputError(f"the page needs {error.name}: pip install 'unitweave[serve]', or --no-page") from None
        app = mount_page(app, "unitweave", page_folder, examples)
    return protect(app, access, limits), app.state.batcher
