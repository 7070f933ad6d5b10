"""Who asks, and whom it trusts: what the environment says to git."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from servery_storage_git.uris import Place

ANY_USER = "git"
"""Sent with a token: the hosts look at the token alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Credentials over HTTP, and what verifies the server."""

    username: str | None = None
    password: str | None = None
    verify: bool = True
    ca_file: Path | None = None
    ssh_command: str | None = None

    @classmethod
    def of(cls, place: Place, environment: Mapping[str, str]) -> Access:
        """Return what the URI says, and what it does not say of KServe's ``GIT_USERNAME`` and ``GIT_PASSWORD``, of
        ``GIT_TOKEN``, and of git's own ``GIT_SSL_NO_VERIFY``, ``GIT_SSL_CAINFO`` and ``GIT_SSH_COMMAND``.
        """
        password = place.password or environment.get("GIT_PASSWORD") or environment.get("GIT_TOKEN") or None
        username = place.username or environment.get("GIT_USERNAME") or (ANY_USER if password else None)
        bundle = environment.get("GIT_SSL_CAINFO")
        return cls(
            username=username,
            password=password,
            verify=environment.get("GIT_SSL_NO_VERIFY", "").lower() not in {"1", "true", "yes", "on"},
            ca_file=Path(bundle) if bundle else None,
            ssh_command=environment.get("GIT_SSH_COMMAND"),
        )

    @property
    def advice(self) -> str:
        """What to do where the server refuses."""
        if self.password is None:
            return "it needs a credential: set GIT_USERNAME and GIT_PASSWORD, or GIT_TOKEN"
        return f"the password or token of {self.username!r} may not read it"
