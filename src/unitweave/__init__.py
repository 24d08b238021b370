"""unitweave: train LLMs for speech-to-speech translation with scheduled interleaved speech-text training."""

__version__ = "0.1.0"
