"""The policy that a model is signed: by OpenSSF model signing (``model.sig``), or blob by blob as cosign does.

Needs the extra ``signatures``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from model_signing import verifying

from servery_storage import sums
from servery_storage.policies import Refused
from servery_storage.settings import Settings

MODEL_SIGNATURE = "model.sig"
BUNDLES = (".sigstore.json", ".cosign.bundle", ".bundle", ".sig")
"""What ``cosign sign-blob`` is told to write, as its documentation, its releases and others name it."""
_MAX_BUNDLE_BYTES = 16 * 1024**2
_MAX_WHOLE_BYTES = 64 * 1024**2
"""Of what Ed25519 signs, which it takes whole."""
_SAID = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who may sign, by one of three ways."""

    key: Path | None = None
    certificates: Path | None = None
    identity: str = ""
    issuer: str = ""
    trust_config: Path | None = None

    @property
    def said(self) -> str:
        """Who, for a message."""
        if self.key is not None:
            return f"the key {self.key} ({_fingerprint(_public_key(self.key))})"
        if self.certificates is not None:
            return f"a certificate that {self.certificates} vouches for"
        return f"{self.identity!r} by {self.issuer!r}"


class Signatures:
    """Looks whether all of a model's files are signed by the right one, and are what was signed."""

    def __init__(self, signers: Signers) -> None:
        self._signers = signers
        files = [path for path in (signers.key, signers.certificates, signers.trust_config) if path is not None]
        told = [sums.of(path) for path in files]
        self.terms = f"signed {told} {signers.identity} {signers.issuer}"

    @classmethod
    def of(cls, settings: Settings) -> Signatures:
        """Return the policy that the settings ask for.

        Raises:
            Refused: They do not say who signs.
        """
        signers = Signers(
            key=settings.signature_key,
            certificates=settings.signature_certificates,
            identity=settings.signature_identity,
            issuer=settings.signature_issuer,
            trust_config=settings.signature_trust_config,
        )
        ways = [signers.key is not None, signers.certificates is not None, bool(signers.identity and signers.issuer)]
        if sum(ways) != 1:
            raise Refused(
                "SERVERY_STORAGE_SIGNATURE_POLICY is require: set one of SERVERY_STORAGE_SIGNATURE_KEY, "
                "SERVERY_STORAGE_SIGNATURE_CERTIFICATES, or SERVERY_STORAGE_SIGNATURE_IDENTITY with _ISSUER"
            )
        for path in (signers.key, signers.certificates, signers.trust_config):
            if path is not None and not path.is_file():
                raise Refused(f"{path}: no such file; it should say whose signatures are taken")
        return cls(signers)

    def check(self, root: Path) -> None:
        """Refuse a model that is not signed, not by whom it should be, or that differs from what was signed."""
        if (root / MODEL_SIGNATURE).is_file():
            self._check_model(root)
        elif self._signers.key is None:
            raise Refused(f"the model is not signed: it has no {MODEL_SIGNATURE}, and must be by {self._signers.said}")
        else:
            _check_blobs(root, self._signers.key, self._signers.said)

    def _check_model(self, root: Path) -> None:
        signature = root / MODEL_SIGNATURE
        what, by = _told(signature)
        # Beside the model instead of in it: who signs elsewhere leaves it out without saying so.
        aside = root.with_name(f"{root.name}.{MODEL_SIGNATURE}")
        signature.rename(aside)
        try:
            self._verifier().verify(root, aside)
        except Exception as error:
            reason = _reason(error)
            raise Refused(
                f"{MODEL_SIGNATURE}, of {what} by {by}, does not hold for {self._signers.said}: {reason}"
            ) from error
        finally:
            aside.rename(signature)

    def _verifier(self) -> verifying.Config:
        signers, config = self._signers, verifying.Config()  # type: ignore[no-untyped-call]
        if signers.key is not None:
            return config.use_elliptic_key_verifier(public_key=signers.key)
        if signers.certificates is not None:
            return config.use_certificate_verifier(certificate_chain=[signers.certificates])
        return config.use_sigstore_verifier(
            identity=signers.identity, oidc_issuer=signers.issuer, trust_config=signers.trust_config
        )


def _told(signature: Path) -> tuple[str, str]:
    """Return what ``model.sig`` says that it signs, and who: so far, anybody may say so."""
    bundle = _json(signature)
    try:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        files = statement["predicate"]["resources"]
        material = bundle["verificationMaterial"]
        what = f"{str(statement['subject'][0]['name'])!r}, {len(files)} files,"
    except (LookupError, TypeError, ValueError) as error:
        raise Refused(f"{MODEL_SIGNATURE} is no signature of a model: {error!r}") from error
    return what, _signer(material)


def _signer(material: Mapping[str, Any]) -> str:
    hint = material.get("publicKey", {}).get("hint")
    if hint:
        return f"the key with SHA-256 {hint}"
    chain = material.get("x509CertificateChain", {}).get("certificates") or [material.get("certificate", {})]
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(chain[0]["rawBytes"]))
    except (LookupError, TypeError, ValueError):
        return "nobody that it names"
    return f"{certificate.subject.rfc4514_string()!r}, whom {certificate.issuer.rfc4514_string()!r} vouches for"


def _reason(error: Exception) -> str:
    if isinstance(error, InvalidSignature) or not str(error):
        return "the signature is not of these words by this key"
    return str(error)


def _check_blobs(root: Path, key: Path, signers: str) -> None:
    """See that each file has a bundle of its own, or is named with its sum in a ``SHA256SUMS`` that has one."""
    public_key = _public_key(key)
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if not path.is_dir()}
    bundles = {name: bundle for name in files for suffix in BUNDLES if (bundle := f"{name}{suffix}") in files}
    told: Mapping[str, str] = {}
    for name, bundle in bundles.items():
        if not _is_signed(files[name], files[bundle], public_key):
            raise Refused(
                f"{bundle} is not of {name!r} as it came, by {signers}: one of the two is another's or was changed"
            )
    if sums.NAME in bundles:
        told = sums.read(files[sums.NAME])
    vouched = bundles.keys() | set(bundles.values())
    unsigned = [name for name in files if name not in vouched and name not in told]
    if unsigned:
        raise Refused(
            f"not signed by {signers}: {', '.join(unsigned[:_SAID])}"
            + (f" and {len(unsigned) - _SAID} more" if len(unsigned) > _SAID else "")
            + f"; there is no {MODEL_SIGNATURE}, and no {sums.NAME} with a bundle names them"
        )
    for name, sum_of_it in told.items():
        if name not in files:
            raise Refused(f"{sums.NAME}, signed by {signers}, names {name!r}, which is not there")
        found = sums.of(files[name])
        if found != sum_of_it:
            raise Refused(f"{name!r} has the SHA-256 {found}, and {sums.NAME}, signed by {signers}, says {sum_of_it}")


class _Verifies(Protocol):
    def __call__(self, signature: bytes) -> None: ...


def _is_signed(file: Path, bundle: Path, key: Any) -> bool:
    verify = _verifier_of(file, key)
    try:
        verify(_signature(bundle))
    except InvalidSignature:
        return False
    return True


def _verifier_of(file: Path, key: Any) -> _Verifies:
    """Return what raises ``InvalidSignature`` for a signature that is not of ``file``."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        if file.stat().st_size > _MAX_WHOLE_BYTES:
            raise Refused(f"{file.name}: Ed25519 signs {_MAX_WHOLE_BYTES} bytes at most here; sign a {sums.NAME}")
        return lambda signature: key.verify(signature, file.read_bytes())
    digest = bytes.fromhex(sums.of(file))
    algorithm = utils.Prehashed(hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePublicKey):
        return lambda signature: key.verify(signature, digest, ec.ECDSA(algorithm))
    assert isinstance(key, rsa.RSAPublicKey)
    return lambda signature: key.verify(signature, digest, padding.PKCS1v15(), algorithm)


def _signature(bundle: Path) -> bytes:
    """Return a bundle's signature: Sigstore's form, cosign's own, or the signature alone."""
    try:
        if bundle.suffix == ".sig":
            return base64.b64decode(bundle.read_bytes(), validate=False)
        told = _json(bundle)
        found = told["base64Signature"] if "base64Signature" in told else told["messageSignature"]["signature"]
        return base64.b64decode(found, validate=True)
    except (LookupError, TypeError, binascii.Error) as error:
        raise Refused(f"{bundle.name} is no bundle of a blob's signature: {error!r}") from error


def _json(path: Path) -> Mapping[str, Any]:
    if path.stat().st_size > _MAX_BUNDLE_BYTES:
        raise Refused(f"{path.name} has {path.stat().st_size} bytes; {_MAX_BUNDLE_BYTES} are allowed")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Refused(f"{path.name} is no signature: {error}") from error
    if not isinstance(found, dict):
        raise Refused(f"{path.name} is no signature: it is no JSON object")
    return found


def _public_key(path: Path) -> Any:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise Refused(f"{path} is no public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise Refused(f"{path}: ECDSA, Ed25519 and RSA keys are taken")
    return key


def _fingerprint(key: Any) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"SHA-256 {hashlib.sha256(pem).hexdigest()}"
