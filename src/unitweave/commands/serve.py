"""unitweave serve."""

import os
import sys
from dataclasses import fields
from pathlib import Path

from unitweave.commands.base import Parser
from unitweave.commands.explain import comments


def serve(arguments: list[str]) -> None:
    """unitweave serve MODEL"""
    from unitweave.config.serve import ServerLimits
    from unitweave.core.errors import InputError
    from unitweave.training.devices import check_device

    parser = Parser(prog="unitweave serve", description="A page and an HTTP API for one model.")
    parser.add_argument("model", help="a run folder, an exported model, or the name of one on the hub (owner/name)")
    parser.add_argument("--system", help="which system of a run folder (default: scheduled, or the only one)")
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen on; 0.0.0.0 for all (default: %(default)s)")  # fmt: skip
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument("--allowed-host", action="append", default=[], metavar="NAME",
                        help="a further name by which clients call this server; repeatable")  # fmt: skip
    parser.add_argument("--token", help="ask clients for this token (better: the environment variable UNITWEAVE_TOKEN)")
    parser.add_argument("--allow-anonymous", action="store_true",
                        help="with --host: anyone on the network may use the server without a token")  # fmt: skip
    parser.add_argument("--no-page", action="store_true", help="the HTTP API alone")
    parser.add_argument("--examples", type=Path, help="folder of recordings to choose from on the page")
    parser.add_argument("--bf16", action="store_true", help="run the language model in bfloat16: faster")
    parser.add_argument("--engine", help="int8: the language model with integer weights, for large ones on a CPU")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="CPU threads")
    meanings = comments(ServerLimits)
    for entry in fields(ServerLimits):
        kind = type(entry.default)
        help = f"{meanings[entry.name]} (default: %(default)s)"
        parser.add_argument("--" + entry.name.replace("_", "-"), type=kind, default=entry.default, help=help)
    known = parser.parse_args(arguments)
    limits = ServerLimits(**{entry.name: getattr(known, entry.name) for entry in fields(ServerLimits)})
    check_device(known.device, "--device")
    try:
        from unitweave.serve.app import Service, serve_model
    except ModuleNotFoundError as error:
        raise InputError(f"the server needs {error.name}: pip install 'unitweave[serve]'") from None
    service = Service(**{entry.name: getattr(known, entry.name) for entry in fields(Service)})
    serve_model(service, limits)
    # Everything is cleaned up. Taking the interpreter down can last many seconds, and could crash below a batch that
    # is still in a long computation.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
