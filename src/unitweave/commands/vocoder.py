"""unitweave vocoder."""

from unitweave.commands.base import stage_command


def train(arguments: list[str]) -> None:
    """unitweave vocoder train RUN [--vocoder.KEY VALUE ...]

    Started by torchrun or accelerate launch, all processes train together.
    """
    stage_command("vocoder train", "vocoder", "vocoder", arguments)
