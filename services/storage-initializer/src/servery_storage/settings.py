"""What the storage initializer can be told. Precedence: environment ``SERVERY_STORAGE_<FIELD>``, default."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Of one run."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_STORAGE_", frozen=True)

    max_concurrency: int = 8
    """Objects fetched at once."""

    max_attempts: int = 5
    """Tries for one object before its failure is final."""

    backoff_seconds: float = 0.5
    """Before the second try; doubles with each one, with jitter."""

    max_unpacked_bytes: int = 512 * 1024**3
    """Upper bound on what an archive holds."""

    termination_log: Path = Path("/dev/termination-log")
    """Where the reason of a failure is left, if the file is there."""
