"""One repository of a registry: its manifests, and what a request for a blob must carry. Imports httpx: the provider's
calls alone import this.

The library ``oras`` does the same for KServe. It keeps a token past its end, knows neither identity tokens nor a
credential of one repository, answers no ``Basic`` challenge, and does not say what it would send, which whoever reads
ranges has to know.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Location, Refusal, Tls

from servery_storage_oci.credentials import Credential
from servery_storage_oci.manifests import ACCEPTED
from servery_storage_oci.references import Reference

TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

MANIFEST_BYTES = 4 * 1024 * 1024
"""What registries hold a manifest to."""

_CLIENT = "servery"
_TOKEN_SECONDS = 60.0
"""How long a token lasts of which the registry does not say it.

Source: the distribution project's token specification, ``expires_in``.
"""
_CHALLENGE = re.compile(r"(?i)\b(bearer|basic)\b")
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^",\s]+))')


class Repository:
    """Asked from several threads at once; one of them asks for a token and the others wait.

    Args:
        is_insecure: Certificates are not verified, and a registry without TLS is read.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self, reference: Reference, credential: Credential | None, *, is_insecure: bool, clock: Callable[[], float]
    ) -> None:
        self._reference, self._credential, self._clock = reference, credential, clock
        self._is_insecure = is_insecure
        self._asking = threading.RLock()
        self._base: str | None = None
        self._challenge: Mapping[str, str] | None = None
        self._token: str | None = None
        self._renewed_at = 0.0
        self._issued_at = 0.0

    def manifest(self, version: str, what: str) -> tuple[Mapping[str, Any], str]:
        """Return the manifest of a tag or a digest, and its digest.

        Raises:
            Transient: The registry does not answer, or may answer otherwise later.
            Permanent: It refuses, or what it sends is not what the digest says.
        """
        answer = self._got(f"manifests/{version}", what)
        if len(answer.content) > MANIFEST_BYTES:
            raise Permanent(f"{what}: its manifest has {len(answer.content)} bytes; {MANIFEST_BYTES} are the most")
        algorithm = version.partition(":")[0] if ":" in version else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, answer.content).hexdigest()}"
        if ":" in version and digest != version:
            raise Permanent(f"{what}: the registry sent another manifest than {version}: {digest}")
        try:
            return json.loads(answer.content), digest
        except ValueError as error:
            raise Permanent(f"{what}: the registry did not send a manifest: {error}") from error

    def location(self, digest: str, what: str) -> Location:
        """Return where a blob is read."""
        authorization = self._authorization(what)
        return Location(
            url=f"{self._url(what)}/blobs/{digest}",
            headers={"authorization": authorization} if authorization else {},
            tls=Tls(verify=not self._is_insecure),
        )

    def refused(self, refusal: Refusal, what: str) -> Transient | Permanent:
        """Return what a refusal means; a token that ran out is asked for anew by the next ``location``."""
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            with self._asking:
                is_old = self._clock() - self._issued_at > _TOKEN_SECONDS / 2
                if self._token is not None and is_old:
                    self._token = None
                    return Transient(f"{what}: the registry's token ran out")
        return failure(refusal, what, self._advice(refusal.status))

    def _got(self, path: str, what: str) -> httpx.Response:
        for is_last in (False, True):
            authorization = self._authorization(what)
            headers = {"accept": ", ".join(ACCEPTED), **({"authorization": authorization} if authorization else {})}
            answer = self._asked("GET", f"{self._url(what)}/{path}", what, headers=headers)
            if answer.is_success:
                return answer
            if answer.status_code == HTTPStatus.UNAUTHORIZED and not is_last:
                # Some registries show their challenge for private repositories only.
                with self._asking:
                    self._challenge, self._token = _challenge_of(answer), None
                continue
            raise self.refused(Refusal.of(answer), what)
        raise AssertionError

    def _url(self, what: str) -> str:
        with self._asking:
            if self._base is None:
                self._greet(what)
            return f"{self._base}/v2/{self._reference.repository}"

    def _greet(self, what: str) -> None:
        """Find how the registry is spoken to, and what it asks of a stranger."""
        base = f"https://{self._reference.host}"
        try:
            answer = self._asked("GET", f"{base}/v2/", what)
        except Transient:
            if not self._is_insecure:
                raise
            base = f"http://{self._reference.host}"
            answer = self._asked("GET", f"{base}/v2/", what)
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            self._challenge = _challenge_of(answer)
        elif not answer.is_success and answer.status_code != HTTPStatus.NOT_FOUND:
            raise failure(Refusal.of(answer), what, "")
        self._base = base

    def _authorization(self, what: str) -> str | None:
        self._url(what)
        with self._asking:
            if self._challenge is None:
                return None
            if self._challenge["scheme"] == "basic":
                return self._credential.basic if self._credential is not None else None
            if self._credential is not None and self._credential.registry_token:
                return f"Bearer {self._credential.registry_token}"
            if self._token is None or self._clock() >= self._renewed_at:
                self._ask_token(self._challenge, what)
            return f"Bearer {self._token}"

    def _ask_token(self, challenge: Mapping[str, str], what: str) -> None:
        """Source: the distribution project's token and OAuth2 specifications."""
        realm = challenge.get("realm")
        if not realm:
            raise Permanent(f"{what}: the registry asks for a token, and does not say who gives it")
        wanted = {"scope": challenge.get("scope") or f"repository:{self._reference.repository}:pull"}
        if service := challenge.get("service"):
            wanted["service"] = service
        credential = self._credential
        if credential is not None and credential.identity_token:
            form = {**wanted, "grant_type": "refresh_token", "client_id": _CLIENT}
            answer = self._asked("POST", realm, what, data={**form, "refresh_token": credential.identity_token})
        else:
            headers = {"authorization": credential.basic} if credential is not None else {}
            answer = self._asked("GET", realm, what, params=wanted, headers=headers)
        if not answer.is_success:
            raise failure(Refusal.of(answer), what, self._advice(answer.status_code))
        try:
            said = answer.json()
            self._token = str(said.get("token") or said["access_token"])
            lasts = float(said.get("expires_in") or _TOKEN_SECONDS)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Permanent(f"{what}: {realm} did not send a token: {type(error).__name__}: {error}") from error
        self._issued_at = self._clock()
        self._renewed_at = self._issued_at + lasts * 0.8

    def _asked(self, method: str, url: str, what: str, **request: Any) -> httpx.Response:
        verify: ssl.SSLContext | bool = not self._is_insecure
        try:
            # It takes credentials off a request that is redirected to another host.
            with httpx.Client(verify=verify, timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
                return client.request(method, url, **request)
        except httpx.TransportError as error:
            host = httpx.URL(url).netloc.decode()
            raise Transient(f"{what}: cannot reach {host}: {type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise Permanent(f"{what}: {type(error).__name__}: {error}") from error

    def _advice(self, status: int) -> str:
        if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return ""
        if self._credential is not None:
            return f"the credential of {self._credential.source} may not pull {self._reference.repository}"
        return (
            f"no docker configuration has a credential for {self._reference.registry}; give an imagePullSecret, or set "
            "KSERVE_OCI_DOCKER_CONFIG"
        )


def failure(refusal: Refusal, what: str, advice: str) -> Transient | Permanent:
    """Return what a registry's error document says."""
    words = "; ".join(part for part in (_words(refusal.body), advice) if part)
    return refusal.failure(what, words)


def _words(body: bytes) -> str:
    try:
        first = json.loads(body)["errors"][0]
        return ": ".join(str(first[part]) for part in ("code", "message") if first.get(part))
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""


def _challenge_of(answer: httpx.Response) -> Mapping[str, str] | None:
    """Return the scheme and parameters that are asked for; a token is preferred to a password."""
    said = ", ".join(answer.headers.get_list("www-authenticate"))
    parts = _CHALLENGE.split(said)[1:]
    found = {
        scheme.lower(): {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(text)}
        for scheme, text in zip(parts[::2], parts[1::2], strict=True)
    }
    for scheme in ("bearer", "basic"):
        if scheme in found:
            return {**found[scheme], "scheme": scheme}
    return None
