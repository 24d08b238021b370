"""unitweave serve."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Literal

from unitweave.config.serve import ServerLimits
from unitweave.config.types import Port, PositiveInt
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports
from unitweave.serve.access import check_access


def serve(
    model: str,
    *,
    system: str | None = None,
    speaker: str | None = None,
    host: str = "127.0.0.1",
    port: Port = 7860,
    allowed_host: list[str] = [],  # noqa: B006
    token: str | None = None,
    allow_anonymous: bool = False,
    no_page: bool = False,
    examples: Path | None = None,
    bf16: bool = False,
    engine: Literal["int8"] | None = None,
    device: str = "cpu",
    threads: PositiveInt | None = None,
    trust_functions: bool = False,
    limits: ServerLimits,
) -> None:
    """Serve one model: a page and an HTTP API.

    Args:
        model: A run folder, an exported model, or the name of one on the hub (OWNER/NAME).
        system: Which system of a run folder (default: scheduled, or the only one).
        speaker: Voice of the translations, where the vocoder has several (default: the model's settings).
        host: Address to listen on; 0.0.0.0 for all.
        port: Port to listen on.
        allowed_host: Further host names under which clients reach this server.
        token: Require this token from clients (better set in the environment variable UNITWEAVE_TOKEN).
        allow_anonymous: With --host: let anyone on the network use the server without a token.
        no_page: Serve only the HTTP API.
        examples: Folder of recordings to choose from on the page.
        bf16: Run the language model in bfloat16: faster, and results differ slightly.
        engine: int8: run the language model with 8-bit integer weights, for large models on a CPU.
        device: cpu, cuda, cuda:1, ...
        threads: CPU threads.
        trust_functions: Run the Python functions that a run folder names (only for runs that you know).
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        # A closed terminal ends the server as SIGTERM does.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    token = check_access(host, token, allow_anonymous)
    used_here = ("model", "system", "speaker", "trust_functions", "limits")
    options: dict[str, Any] = {key: value for key, value in locals().items() if key not in (*used_here, "used_here")}

    from unitweave.serve.examples import find_examples
    from unitweave.translate.checks import check_service
    from unitweave.translate.package import find_parts

    # Refuses what is no model before seconds of imports.
    parts = find_parts(model, system, trust_functions).in_voice(speaker)
    check_service(parts, engine, device, bf16)
    if examples is not None:
        find_examples(examples)
    try:
        with quick_imports(only_decoding=not trust_functions):
            from unitweave.training.devices import check_device

            check_device(device, "--device")
            from unitweave.serve.app import Service, serve_model
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}: pip install 'unitweave[serve]'") from None
    serve_model(Service(parts, **options), limits)
    # Everything is cleaned up. Taking the interpreter down can last many seconds, and could crash below a batch that
    # is still in a long computation.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
