"""What the storage initializer can be told. Precedence: environment ``SERVERY_STORAGE_<FIELD>``, default."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic_settings import BaseSettings, SettingsConfigDict


class SignaturePolicy(StrEnum):
    """Whether a model must be signed."""

    NONE = "none"
    REQUIRE = "require"


class PicklePolicy(StrEnum):
    """What becomes of a model with a pickle that would do harm."""

    OFF = "off"
    WARN = "warn"
    REFUSE = "refuse"


class Formats(StrEnum):
    """Which files of weights are taken."""

    ANY = "any"
    SAFETENSORS = "safetensors"


class Settings(BaseSettings):
    """Of one run."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_STORAGE_", frozen=True)

    max_connections: int = 16
    """Pieces fetched at once, each on a connection of its own."""

    max_processes: int = 4
    """Beside this one, where hundreds of small objects come; of a machine's cores no more, and 0 leaves all to threads."""

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

    max_unpacked_files: int = 100_000
    """Upper bound on an archive's files, links and folders."""

    max_unpacked_ratio: int = 200
    """Upper bound on what an archive holds, in times its own size; 16 MiB are always allowed."""

    signature_policy: SignaturePolicy = SignaturePolicy.NONE
    """With ``require``, a model is placed only if whom the next settings name has signed all of its files."""

    signature_key: str = ""
    """The signer's public key, PEM: a file's path, or the text itself."""

    signature_certificates: str = ""
    """Certificates that the signer's must lead to, PEM, one or more, as a path or text; for ``model.sig``."""

    signature_identity: str = ""
    """Who must have signed by Sigstore, such as a mail address or a workflow's URL; for ``model.sig``."""

    signature_issuer: str = ""
    """Who must have vouched for ``signature_identity``: an OpenID Connect issuer's URL."""

    signature_trust_config: str = ""
    """What Sigstore itself is trusted by, as a path or JSON; without it, the public instance's is fetched."""

    pickle_policy: PicklePolicy = PicklePolicy.OFF
    """Whether a model with a pickle that would run what is known to do harm, or that cannot be read, is refused."""

    formats: Formats = Formats.ANY
    """With ``safetensors``, pickles are left out where the same weights are there as safetensors, else refused."""

    termination_log: Path = Path("/dev/termination-log")
    """Where the reason of a failure is left, if the file is there."""
