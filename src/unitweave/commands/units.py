"""unitweave units: the encoder, the codebook, extraction."""

from unitweave.commands.base import stage_command


def train_encoder(arguments: list[str]) -> None:
    """unitweave units train-encoder RUN [--encoder.KEY VALUE ...]"""
    stage_command("units train-encoder", "encoder", "encoder", arguments)


def codebook(arguments: list[str]) -> None:
    """unitweave units codebook RUN [--codebook.KEY VALUE ...]"""
    stage_command("units codebook", "codebook", "codebook", arguments)


def extract(arguments: list[str]) -> None:
    """unitweave units extract RUN [--units.KEY VALUE ...]"""
    stage_command("units extract", "units", "units", arguments)
