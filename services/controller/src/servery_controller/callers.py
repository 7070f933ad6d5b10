"""Who asks on the port of assignments: pods, by the tokens that their kubelets get them for the controller alone."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from servery_kube.port import KubeApi
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.kinds import TOKEN_REVIEW
from servery_sdk.manifests import Manifest

KNOWN_SECONDS, UNKNOWN_SECONDS = 60.0, 10.0
"""How long an answer of the API server counts: agents ask again each second until the controller that leads answers."""

_MOST = 4096
"""Answers that are kept; the oldest go first."""
_ACCOUNT = "system:serviceaccount:"
_POD = "authentication.kubernetes.io/pod-name"


class Stranger(ServeryError):
    """Somebody who may not hear what a pod holds."""

    code = ErrorCode.INVALID_ARGUMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A pod."""

    namespace: str
    pod: str


class Callers(Protocol):
    """Tells pods from others."""

    async def check(self, token: str, caller: Caller) -> None:
        """Return where ``token`` is of ``caller``.

        Raises:
            Stranger: It is not; says whose it is.
            ServeryError: Nobody can tell now.
        """


class Anybody:
    """``Callers`` of one machine, whose processes are one user's."""

    async def check(self, token: str, caller: Caller) -> None:
        """Return."""


class TokenReviews:
    """``Callers`` by the API server's word, which is asked once for each token and minute.

    Args:
        audience: Tokens must be made for; others, such as those with which pods ask the API server, are refused.
        clock: Returns seconds.

    Source: Kubernetes, "TokenReview", "Bound service account tokens".
    """

    def __init__(self, api: KubeApi, audience: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._audience, self._clock = api, audience, clock
        self._known: OrderedDict[bytes, tuple[float, Caller | None]] = OrderedDict()

    async def check(self, token: str, caller: Caller) -> None:
        """Return where ``token`` is of ``caller``.

        Raises:
            Stranger: It is not; says whose it is.
            KubeError: The API server does not answer.
        """
        if not token:
            raise Stranger(f"no token: send one of audience {self._audience!r} (--controller-token-file)")
        found = await self._of(token)
        if found is None:
            raise Stranger(
                f"the token is none of a pod of this cluster for audience {self._audience!r}, or has expired"
            )
        if found != caller:
            raise Stranger(
                f"the token is of pod {found.namespace}/{found.pod}, and not of {caller.namespace}/{caller.pod}"
            )

    async def _of(self, token: str) -> Caller | None:
        digest = hashlib.sha256(token.encode()).digest()
        until, found = self._known.get(digest, (0.0, None))
        if self._clock() < until:
            return found
        review = {
            "apiVersion": TOKEN_REVIEW.api_version,
            "kind": TOKEN_REVIEW.kind,
            "metadata": {},
            "spec": {"token": token, "audiences": [self._audience]},
        }
        status = (await self._api.create(review, TOKEN_REVIEW)).get("status") or {}
        found = _caller(status) if self._audience in (status.get("audiences") or ()) else None
        self._known[digest] = (self._clock() + (UNKNOWN_SECONDS if found is None else KNOWN_SECONDS), found)
        self._known.move_to_end(digest)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found


def _caller(status: Manifest) -> Caller | None:
    user = status.get("user") or {}
    name = str(user.get("username") or "")
    pods = list((user.get("extra") or {}).get(_POD) or ())
    if not status.get("authenticated") or not name.startswith(_ACCOUNT) or len(pods) != 1:
        return None
    return Caller(namespace=name.removeprefix(_ACCOUNT).partition(":")[0], pod=pods[0])
