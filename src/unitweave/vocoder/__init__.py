"""Unit vocoder: units (50 a second) -> 16 kHz speech. See docs/vocoder.md."""
