"""unitweave corpus."""

from unitweave.commands.base import stage_command


def corpus(arguments: list[str]) -> None:
    """unitweave corpus RUN [--corpus.KEY VALUE ...]"""
    stage_command("corpus", "corpus", "corpus", arguments)
