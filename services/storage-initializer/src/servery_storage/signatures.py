"""The policy that a model is signed: by OpenSSF model signing (``model.sig``), or blob by blob as cosign does.

Needs the extra ``signatures``.
"""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import json
import re
import shutil
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
_TEXTS = ("-----BEGIN ", "{")
"""What PEM and JSON begin with."""
BUNDLES = (".sigstore.json", ".cosign.bundle", ".bundle", ".sig")
"""What ``cosign sign-blob`` is told to write, as its documentation, its releases and others name it."""
_MAX_BUNDLE_BYTES = 16 * 1024**2
_MAX_WHOLE_BYTES = 64 * 1024**2
"""Of what Ed25519 signs, which it takes whole."""
_SAID = 5
_DIGEST = re.compile(r"""'?Digest\(algorithm='([\w-]+)', digest_value=(b(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))\)'?""")
"""A sum as model-signing says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """What says whose signatures are taken: a key, certificates, Sigstore's own.

    Attributes:
        name: Of the file that has it, or of the variable.
    """

    name: str
    content: bytes

    @classmethod
    def of(cls, told: str, variable: str) -> Trusted | None:
        """Return what a setting holds: text of PEM or JSON, or the path of a file of it.

        Raises:
            Refused: There is no such file.
        """
        if not told:
            return None
        if told.lstrip().startswith(_TEXTS):
            return cls(name=f"in {variable}", content=told.encode())
        try:
            return cls(name=told, content=Path(told).read_bytes())
        except OSError as error:
            raise Refused(
                f"{told}: no such file ({error.strerror}); {variable} should say whose signatures are taken"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """Who may sign, by one of three ways."""

    key: Trusted | None = None
    certificates: Trusted | None = None
    identity: str = ""
    issuer: str = ""
    trust_config: Trusted | None = None

    @property
    def said(self) -> str:
        """Who, for a message."""
        if self.key is not None:
            return f"the key {self.key.name} ({_fingerprint(_public_key(self.key))})"
        if self.certificates is not None:
            return f"a certificate that {self.certificates.name} vouches for"
        return f"{self.identity!r} by {self.issuer!r}"


class Signatures:
    """Looks whether all of a model's files are signed by the right one, and are what was signed."""

    def __init__(self, signers: Signers) -> None:
        self._signers = signers
        trusted = [told for told in (signers.key, signers.certificates, signers.trust_config) if told is not None]
        told = [hashlib.sha256(one.content).hexdigest() for one in trusted]
        self.terms = f"signed {told} {signers.identity} {signers.issuer}"

    @classmethod
    def of(cls, settings: Settings) -> Signatures:
        """Return the policy that the settings ask for.

        Raises:
            Refused: They do not say who signs.
        """
        ways = (
            settings.signature_key,
            settings.signature_certificates,
            settings.signature_identity and settings.signature_issuer,
        )
        if sum(map(bool, ways)) != 1:
            raise Refused(
                "SERVERY_STORAGE_SIGNATURE_POLICY is require: set one of SERVERY_STORAGE_SIGNATURE_KEY, "
                "SERVERY_STORAGE_SIGNATURE_CERTIFICATES, or SERVERY_STORAGE_SIGNATURE_IDENTITY with _ISSUER"
            )
        signers = Signers(
            key=Trusted.of(settings.signature_key, "SERVERY_STORAGE_SIGNATURE_KEY"),
            certificates=Trusted.of(settings.signature_certificates, "SERVERY_STORAGE_SIGNATURE_CERTIFICATES"),
            identity=settings.signature_identity,
            issuer=settings.signature_issuer,
            trust_config=Trusted.of(settings.signature_trust_config, "SERVERY_STORAGE_SIGNATURE_TRUST_CONFIG"),
        )
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
        trusted = root.with_name(f"{root.name}.trusted")
        trusted.mkdir(exist_ok=True)
        try:
            self._verifier(trusted).verify(root, aside)
        except Exception as error:
            reason = _reason(error)
            raise Refused(
                f"{MODEL_SIGNATURE}, of {what} by {by}, does not hold for {self._signers.said}: {reason}"
            ) from error
        finally:
            aside.rename(signature)
            shutil.rmtree(trusted)

    def _verifier(self, folder: Path) -> verifying.Config:
        """Return what verifies. It reads files, which are written into ``folder``."""
        signers, config = self._signers, verifying.Config()  # type: ignore[no-untyped-call]
        if signers.key is not None:
            return config.use_elliptic_key_verifier(public_key=_written(signers.key, folder / "key"))
        if signers.certificates is not None:
            return config.use_certificate_verifier(
                certificate_chain=[_written(signers.certificates, folder / "certificates")]
            )
        config_file = _written(signers.trust_config, folder / "config") if signers.trust_config is not None else None
        return config.use_sigstore_verifier(
            identity=signers.identity, oidc_issuer=signers.issuer, trust_config=config_file
        )


def _written(trusted: Trusted, path: Path) -> Path:
    path.write_bytes(trusted.content)
    return path


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
    what, _, listed = str(error).partition(": ")
    try:
        found = ast.literal_eval(listed)
        return f"{what}: {'; '.join(_DIGEST.sub(_hexadecimal, one) for one in found)}"
    except (ValueError, SyntaxError, TypeError):
        return str(error)  # of another form than model-signing's list of differences


def _hexadecimal(digest: re.Match[str]) -> str:
    return f"{digest[1]} {ast.literal_eval(digest[2]).hex()}"


def _check_blobs(root: Path, key: Trusted, signers: str) -> None:
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


def _public_key(trusted: Trusted) -> Any:
    try:
        key = serialization.load_pem_public_key(trusted.content)
    except ValueError as error:
        raise Refused(f"{trusted.name} is no public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise Refused(f"{trusted.name}: ECDSA, Ed25519 and RSA keys are taken")
    return key


def _fingerprint(key: Any) -> str:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"SHA-256 {hashlib.sha256(pem).hexdigest()}"
