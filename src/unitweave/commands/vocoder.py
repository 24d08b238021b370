"""unitweave vocoder."""

from unitweave.commands.base import stage_command


def train(arguments: list[str]) -> None:
    """unitweave vocoder train RUN [--vocoder.KEY VALUE ...]

    Started by torchrun or accelerate launch, all processes train together.
    """
    from unitweave.training.distributed import together
    from unitweave.vocoder.train import train_vocoder

    together(
        lambda: stage_command("vocoder train", "vocoder", "vocoder", arguments),
        {"train_vocoder": train_vocoder},
    )
