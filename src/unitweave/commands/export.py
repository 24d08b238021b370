"""unitweave export and unitweave push."""

from pathlib import Path

from unitweave.commands.base import Parser


def export(arguments: list[str]) -> None:
    """unitweave export RUN -o MODEL"""
    from unitweave.serve.export import export_run

    parser = Parser(prog="unitweave export", description="Write one system of a run as a model folder for the hub.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--system", help="which system of the run (default: scheduled, or the only one)")
    parser.add_argument("--license", help="license of the model as the hub names licenses, for instance apache-2.0")
    parser.add_argument(
        "--engine", help="int8: integer weights in place of float32; vllm: also write what vLLM needs for the stages"
    )
    known = parser.parse_args(arguments)
    export_run(known.run, known.system, known.out, known.license, known.engine)
    print(known.out)


def push(arguments: list[str]) -> None:
    """unitweave push MODEL OWNER/NAME"""
    from unitweave.serve.export import push as upload

    parser = Parser(
        prog="unitweave push", description="Upload an exported model to the hub (log in with 'hf auth login')."
    )
    parser.add_argument("model", type=Path, help="a folder that unitweave export wrote")
    parser.add_argument("name", help="owner/name on the hub")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    known = parser.parse_args(arguments)
    print(upload(known.model, known.name, known.private))
