"""What the storage initializer can be told. Precedence: environment ``SERVERY_STORAGE_<FIELD>``, default."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Of one run."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_STORAGE_", frozen=True)

    max_connections: int = 16
    """Pieces fetched at once, each on a connection of its own."""

    piece_bytes: int = 32 * 1024**2
    """A larger object is fetched in pieces of this size."""

    buffer_bytes: int = 1024**2
    """Of each connection: memory is this times ``max_connections``."""

    max_bytes_per_second: int = 0
    """Of all connections together; 0 is no bound."""

    timeout_seconds: float = 30.0
    """Without a byte, before a connection is given up."""

    max_attempts: int = 5
    """Tries at one place of one object before its failure is final."""

    max_mismatches: int = 3
    """Times that an object may come with another sum than its source's before that is final."""

    backoff_seconds: float = 0.5
    """Before the second try; doubles with each one, with jitter."""

    cache: Path | None = None
    """Where objects are kept for this node's other pods; none keeps nothing."""

    max_cache_bytes: int = 0
    """Of all objects in the cache; the least recently used go first. 0 is no bound."""

    max_unpacked_bytes: int = 512 * 1024**3
    """Upper bound on what an archive holds."""

    termination_log: Path = Path("/dev/termination-log")
    """Where the reason of a failure is left, if the file is there."""
