"""unitweave vocoder."""

from unitweave.commands.base import stage_command


def train(arguments: list[str]) -> None:
    """unitweave vocoder train RUN [--vocoder.KEY VALUE ...]"""
    stage_command("vocoder train", "vocoder", "vocoder", arguments)
