"""Settings of the server."""

from dataclasses import dataclass

from unitweave.config.types import NonNegativeNumber, PositiveInt, PositiveNumber, Settings
from unitweave.core.errors import InputError


@dataclass
class ServerLimits(Settings):
    """What a server accepts, and how much of it at a time."""

    max_upload_mb: PositiveNumber = 25.0
    """Maximum size of an upload in megabytes; larger ones get 413."""
    max_audio_seconds: PositiveNumber = 60.0
    """Maximum length of a recording in seconds; longer ones get 400."""
    max_queue: PositiveInt = 64
    """Maximum number of waiting requests; further ones get 503 with Retry-After."""
    request_timeout_seconds: PositiveNumber = 120.0
    """Maximum seconds for an upload (then 408) and for a translation (then 504)."""
    batch_size: PositiveInt = 16
    """Maximum number of requests translated together."""
    batch_wait_seconds: NonNegativeNumber = 0.02
    """Seconds for which the first request of a batch waits for others."""
    max_streams: PositiveInt = 8
    """Maximum number of answers streamed at the same time."""
    max_live_sessions: PositiveInt = 16
    """Maximum number of live sessions at the same time; further ones are refused as busy."""
    max_live_seconds: PositiveNumber = 7200.0
    """Maximum length of a live session in seconds of input."""
    max_live_backlog_seconds: PositiveNumber = 10.0
    """Seconds of a live session's input that may wait for the model; then the session ends as busy."""
    live_idle_seconds: PositiveNumber = 30.0
    """Seconds without input after which a live session ends."""
    max_storage_mb: PositiveNumber = 1000.0
    """Maximum size of all temporary files in megabytes."""
    max_connections: PositiveInt = 256
    """Maximum number of open connections; further ones get 503."""

    def check(self) -> None:
        """Raise InputError where the storage holds too few uploads."""
        if 4 * self.max_upload_mb > self.max_storage_mb:
            raise InputError(
                f"max_storage_mb: must be at least four times max_upload_mb, {4 * self.max_upload_mb:g} "
                f"(got {self.max_storage_mb:g})"
            )
