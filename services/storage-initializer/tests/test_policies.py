"""Signatures, sums and formats: which models are placed, and what is said of the others."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import logging
import pickle
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from model_signing import signing
from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.storage import Sink, StorageEntry, StorageUri
from servery_storage import sums
from servery_storage.commands import app
from servery_storage.engine import Engine, FetchFailed
from servery_storage.formats import left_out
from servery_storage.patterns import Patterns
from servery_storage.place import RECORD_PREFIX
from servery_storage.policies import Refused
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from typer.testing import CliRunner

FILES = {"model.bin": b"weights", "config.json": b"{}", "deep/empty": b""}
WEIGHTS = f"sha256 {hashlib.sha256(FILES['model.bin']).hexdigest()}"
ALL = Patterns()
Fetch = Callable[..., Any]


class Objects:
    """A provider of objects with versions; of some it knows the digest."""

    name = "objects"
    schemes = frozenset({"test"})

    def __init__(self, objects: Mapping[str, bytes], digests: Mapping[str, bytes] | None = None) -> None:
        self.objects, self.digests = dict(objects), digests or {}
        self.fetched: list[str] = []

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        for path, content in self.objects.items():
            digest = Digest(DigestAlgorithm.SHA256, self.digests[path]) if path in self.digests else None
            version = hashlib.sha256(content).hexdigest()
            yield StorageEntry(path=path, source=path, size_bytes=len(content), version=version, digest=digest)

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        self.fetched.append(entry.path)
        sink.write(self.objects[entry.source][offset:])


@pytest.fixture
def fetch(tmp_path: Path) -> Fetch:
    """Fetch objects to ``target``, and return what is there then."""

    async def fetched(
        objects: Mapping[str, bytes] | Objects, patterns: Patterns = ALL, **settings: Any
    ) -> dict[str, bytes]:
        provider = objects if isinstance(objects, Objects) else Objects(objects)
        target = tmp_path / "target"
        try:
            engine = Engine({"objects": provider}, Settings(**settings))
            await engine.fetch("test://m", target, JsonLines(io.StringIO()), patterns)
        except FetchFailed:
            assert [path for path in tmp_path.glob("*target*") if path != target] == []
            raise
        return files_below(target)

    return fetched


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(RECORD_PREFIX)
    }


def laid(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# Sums.


def summed(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items()).encode()


def test_command_writes_what_coreutils_write_and_check(tmp_path: Path) -> None:
    odd = {"ü": b"1", "with space": b"2", "back\\slash": b"3", "new\nline": b"4", " first": b"5"}
    model = laid(tmp_path / "m", {**FILES, **odd, f"{RECORD_PREFIX}0": b"x", "SHA256SUMS.sigstore.json": b"x"})
    for _ in range(2):
        answer = CliRunner().invoke(app, ["sum", str(model)])
        assert (answer.exit_code, answer.output) == (0, f"{model}/SHA256SUMS\n")
    told = (model / "SHA256SUMS").read_bytes()
    names = sorted([*FILES, *odd])
    expected = subprocess.run(["sha256sum", "--", *names], cwd=model, capture_output=True, check=True).stdout
    assert told == expected
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=model, check=True)


def test_command_needs_a_folder(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["sum", str(tmp_path / "nothing")]).exit_code == 2


@pytest.mark.parametrize("flags", [[], ["--binary"], ["--tag"]], ids=str)
def test_every_form_that_coreutils_write_is_read(tmp_path: Path, flags: list[str]) -> None:
    names = ["a b", "ü", "(x) = y"]
    laid(tmp_path, {name: name.encode() for name in names})
    said = subprocess.run(["sha256sum", *flags, *names], cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / "SHA256SUMS").write_bytes(b"# by hand\n\n" + said.replace(b"\n", b"\r\n"))
    assert sums.read(tmp_path / "SHA256SUMS") == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}


async def test_model_with_right_sums_is_placed(fetch: Fetch) -> None:
    model = {**FILES, "SHA256SUMS": summed(FILES)}
    assert await fetch(model) == model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.bin": b"weightz"}, "'model.bin' has the SHA-256 .*, and SHA256SUMS says "),
        ({"model.bin": None}, "SHA256SUMS names 'model.bin', which is not there"),
        ({"SHA256SUMS": b"hello"}, "SHA256SUMS, line 1: no SHA-256 and name: 'hello'"),
        ({"SHA256SUMS": summed({"../x": b""})}, "SHA256SUMS, line 1: '../x' would be written outside"),
        (
            {"SHA256SUMS": summed(FILES) + summed({"model.bin": b"?"})},
            "SHA256SUMS, line 4: 'model.bin' has another sum further up",
        ),
    ],
    ids=["changed", "missing", "no-sums", "outside", "contradicting"],
)
async def test_model_with_wrong_sums_is_absent(
    fetch: Fetch, tmp_path: Path, change: Mapping[str, bytes | None], words: str
) -> None:
    model = {**FILES, "SHA256SUMS": summed(FILES), **change}
    with pytest.raises(FetchFailed, match=f"test://m: {words}"):
        await fetch({name: content for name, content in model.items() if content is not None})
    assert not (tmp_path / "target").exists()


async def test_sums_in_an_archive_count(fetch: Fetch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model.bin", b"changed")
        archive.writestr("SHA256SUMS", summed(FILES))
    with pytest.raises(FetchFailed, match=r"'model\.bin' has the SHA-256"):
        await fetch({"m.zip": buffer.getvalue()})


async def test_what_patterns_leave_out_need_not_be_there(fetch: Fetch) -> None:
    model = {**FILES, "SHA256SUMS": summed(FILES)}
    found = await fetch(model, Patterns(ignore=("deep/*",)))
    assert found.keys() == {"model.bin", "config.json", "SHA256SUMS"}


async def test_what_the_source_has_digests_of_is_not_summed_again(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    of = sums.of
    monkeypatch.setattr(sums, "of", lambda path: looked_at.append(path.name) or of(path))
    known = {"model.bin": hashlib.sha256(FILES["model.bin"]).digest()}
    await fetch(Objects({**FILES, "SHA256SUMS": summed(FILES)}, known))
    assert sorted(looked_at) == ["config.json", "empty"]


# Formats.


@pytest.mark.parametrize(
    ("paths", "gone"),
    [
        (["model.safetensors", "pytorch_model.bin"], {"pytorch_model.bin"}),
        (["model.safetensors", "model.pt", "model.pkl"], {"model.pt", "model.pkl"}),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "pytorch_model-00001-of-00003.bin"],
            {"pytorch_model-00001-of-00003.bin"},
        ),
        (["consolidated.safetensors", "consolidated.00.pth"], {"consolidated.00.pth"}),
        (["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.bin", "vae/model.bin"],
         {"unet/diffusion_pytorch_model.bin"}),
        (["adapter_model.safetensors", "adapter_model.bin", "training_args.bin", "optimizer.pt", "rng_state_0.pth"],
         {"adapter_model.bin", "training_args.bin", "optimizer.pt", "rng_state_0.pth"}),
        (["a/model.safetensors", "b/pytorch_model.bin", "training_args.bin"], set()),
        (["model.safetensors", "scaler.pkl", "vocabulary.bin", "model.json"], set()),
        (["pytorch_model.bin"], set()),
    ],
)  # fmt: skip
def test_twins_of_safetensors_are_left_out(paths: list[str], gone: set[str]) -> None:
    assert set(left_out(paths)) == gone


PICKLE = pickle.dumps(Path("x"))


async def test_twins_are_not_even_fetched(fetch: Fetch) -> None:
    model = {"model.safetensors": b"x", "pytorch_model.bin": PICKLE, "vocabulary.bin": b"\xff" * 9}
    provider = Objects({**model, "SHA256SUMS": summed(model)})
    found = await fetch(provider, formats="safetensors")
    assert found.keys() == {"model.safetensors", "vocabulary.bin", "SHA256SUMS"}
    assert "pytorch_model.bin" not in provider.fetched
    assert (await fetch(model)).keys() == model.keys()


async def test_twins_in_an_archive_are_taken_away(fetch: Fetch) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/model.safetensors", b"x")
        archive.writestr("a/pytorch_model.bin", PICKLE)
    assert await fetch({"m.zip": buffer.getvalue()}, formats="safetensors") == {"a/model.safetensors": b"x"}


@pytest.mark.parametrize("name", ["scaler.pkl", "other.bin", "other.PT"])
async def test_other_pickles_are_refused(fetch: Fetch, tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchFailed, match=f"{name} is a pickle, and only safetensors are taken: .*IGNORE_PATTERNS"):
        await fetch({"model.safetensors": b"x", name: PICKLE}, formats="safetensors")
    assert not (tmp_path / "target").exists()


# Pickles.


async def test_model_with_harm_in_a_pickle_is_absent(fetch: Fetch, tmp_path: Path) -> None:
    harm = b"cos\nsystem\n(S'true'\ntR."
    with pytest.raises(FetchFailed, match=r"test://m: deep/m\.pkl would run os\.system when it is loaded"):
        await fetch({"deep/m.pkl": harm}, pickle_policy="refuse")
    assert not (tmp_path / "target").exists()
    assert await fetch({"deep/m.pkl": harm}) == {"deep/m.pkl": harm}


async def test_model_that_is_there_is_looked_at_again_by_another_policy(
    fetch: Fetch, caplog: pytest.LogCaptureFixture
) -> None:
    model = {"m.pkl": b"cos\nsystem\n."}
    await fetch(model)
    with pytest.raises(FetchFailed, match="would run"):
        await fetch(model, pickle_policy="refuse")
    provider = Objects(model)
    with caplog.at_level(logging.WARNING):
        await fetch(provider, pickle_policy="warn")
        assert len(caplog.records) == 1
        await fetch(provider, pickle_policy="warn")
    assert len(caplog.records) == 1
    assert provider.fetched == ["m.pkl"]


# Signatures.


def written(path: Path, key: Any) -> Path:
    """Write a key; return its path. The public one's lies beside it, with ``.pub``."""
    private, public = serialization.PrivateFormat.PKCS8, serialization.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    written(folder / "ours", ec.generate_private_key(ec.SECP256R1()))
    written(folder / "theirs", ec.generate_private_key(ec.SECP256R1()))
    written(folder / "rsa", rsa.generate_private_key(65537, 2048))
    written(folder / "ed25519", ed25519.Ed25519PrivateKey.generate())
    return folder


def certified(folder: Path, name: str) -> None:
    """Write a root's certificate, and a key and certificate for ``name`` that it vouches for."""
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name} root")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)

    def certificate(of: x509.Name, key: Any, *, is_root: bool) -> x509.Certificate:
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"], False)  # fmt: skip
        return (
            x509.CertificateBuilder(issuer, of, key.public_key(), x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=36500))
            .add_extension(x509.BasicConstraints(is_root, None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not is_root, key_cert_sign=is_root, crl_sign=is_root, **usage), True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
            .sign(root, hashes.SHA256())
        )

    written(folder / f"{name}.key", leaf)
    for kind, made in [
        ("root", certificate(issuer, root, is_root=True)),
        ("crt", certificate(subject, leaf, is_root=False)),
    ]:
        (folder / f"{name}.{kind}").write_bytes(made.public_bytes(serialization.Encoding.PEM))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    certified(folder, "ours")
    certified(folder, "theirs")
    return folder


def signed(folder: Path, configure: Callable[[signing.Config], signing.Config]) -> dict[str, bytes]:
    """Return the model with the signature that OpenSSF's tool writes into it."""
    model = laid(folder / "signed", FILES)
    configure(signing.Config()).sign(model, model / "model.sig")
    return files_below(model)


REQUIRED = {"signature_policy": "require"}


@pytest.fixture(params=["key", "certificates"])
def way(request: pytest.FixtureRequest, keys: Path, certificates: Path) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """How a model is signed, the settings that take it, and those that take another's."""
    if request.param == "key":
        return (
            lambda config: config.use_elliptic_key_signer(private_key=keys / "ours"),
            {**REQUIRED, "signature_key": str(keys / "ours.pub")},
            {**REQUIRED, "signature_key": str(keys / "theirs.pub")},
        )
    return (
        lambda config: config.use_certificate_signer(
            private_key=certificates / "ours.key",
            signing_certificate=certificates / "ours.crt",
            certificate_chain=[certificates / "ours.root"],
        ),
        {**REQUIRED, "signature_certificates": str(certificates / "ours.root")},
        {**REQUIRED, "signature_certificates": str(certificates / "theirs.root")},
    )


async def test_signed_model_is_placed(fetch: Fetch, tmp_path: Path, way: Any) -> None:
    configure, ours, _ = way
    model = signed(tmp_path, configure)
    assert await fetch(model, **ours) == model


async def test_signature_made_beside_the_model_holds_in_it(fetch: Fetch, tmp_path: Path, way: Any) -> None:
    configure, ours, _ = way
    configure(signing.Config()).sign(laid(tmp_path / "m", FILES), tmp_path / "made.sig")
    model = {**FILES, "model.sig": (tmp_path / "made.sig").read_bytes()}
    assert await fetch(model, **ours) == model


async def test_who_signs_may_be_told_by_text_instead_of_a_file(fetch: Fetch, tmp_path: Path, way: Any) -> None:
    """As a cluster's controller does it: no volume of the pod holds what decides on its models."""
    configure, ours, theirs = way
    model = signed(tmp_path, configure)

    def by_text(settings: Mapping[str, str]) -> dict[str, str]:
        return {name: Path(told).read_text() if told.startswith("/") else told for name, told in settings.items()}

    assert await fetch(model, **by_text(ours)) == model
    with pytest.raises(FetchFailed, match=r"does not hold for .* in SERVERY_STORAGE_SIGNATURE_(KEY|CERTIFICATES)"):
        await fetch(model, **by_text(theirs))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model.bin": b"weightz"}, f"Hash mismatch for 'model.bin': Expected {WEIGHTS}"),
        ({"extra.bin": b""}, "Extra files found .*extra.bin"),
        ({"deep/empty": None}, "Missing files .*deep/empty"),
    ],
    ids=["changed", "extra", "missing"],
)
async def test_model_that_differs_from_what_was_signed_is_absent(
    fetch: Fetch, tmp_path: Path, way: Any, change: Mapping[str, bytes | None], words: str
) -> None:
    configure, ours, _ = way
    model = {**signed(tmp_path, configure), **change}
    with pytest.raises(FetchFailed, match=rf"model\.sig, of 'signed', 3 files, by .*ours|key.*{words}") as failed:
        await fetch({name: content for name, content in model.items() if content is not None}, **ours)
    assert words.split(" .*", maxsplit=1)[0] in str(failed.value)
    assert not (tmp_path / "target").exists()


async def test_model_that_another_signed_is_absent(fetch: Fetch, tmp_path: Path, way: Any) -> None:
    configure, _, theirs = way
    model = signed(tmp_path, configure)
    with pytest.raises(FetchFailed, match=r"model\.sig, of 'signed', 3 files, by .* does not hold for .*theirs"):
        await fetch(model, **theirs)
    assert not (tmp_path / "target").exists()


async def test_signature_whose_words_were_changed_does_not_hold(fetch: Fetch, tmp_path: Path, way: Any) -> None:
    """The sums of a changed file, put into the signed list."""
    configure, ours, _ = way
    model = signed(tmp_path, configure)
    bundle = json.loads(model["model.sig"])
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    for before, after in [(b"weights", b"weightz")]:
        old, new = (hashlib.sha256(content).hexdigest().encode() for content in (before, after))
        assert old in payload
        payload = payload.replace(old, new)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    changed = {**model, "model.bin": b"weightz", "model.sig": json.dumps(bundle).encode()}
    with pytest.raises(FetchFailed, match=r"does not hold for .*: .*[Ss]ignature"):
        await fetch(changed, **ours)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b"{}", b'{"dsseEnvelope": {"payload": "AAAA"}}'])
async def test_broken_signature_is_said(fetch: Fetch, keys: Path, content: bytes) -> None:
    with pytest.raises(FetchFailed, match=r"model\.sig is no signature"):
        await fetch({**FILES, "model.sig": content}, **REQUIRED, signature_key=str(keys / "ours.pub"))


async def test_unsigned_model_is_absent(fetch: Fetch, tmp_path: Path, certificates: Path) -> None:
    with pytest.raises(
        FetchFailed, match=r"the model is not signed: it has no model\.sig, and must be by a certificate"
    ):
        await fetch(FILES, **REQUIRED, signature_certificates=str(certificates / "ours.root"))
    assert not (tmp_path / "target").exists()


async def test_sigstore_identity_needs_a_bundle_of_sigstore(fetch: Fetch, tmp_path: Path, keys: Path) -> None:
    """Without the network, up to where the bundle says how it was signed."""
    model = signed(tmp_path, lambda config: config.use_elliptic_key_signer(private_key=keys / "ours"))
    trust = tmp_path / "trust.json"
    trust.write_text("{}")
    identity = {"signature_identity": "a@b.example", "signature_issuer": "https://issuer.example"}
    with pytest.raises(FetchFailed, match=r"does not hold for 'a@b\.example' by 'https://issuer\.example'"):
        await fetch(model, **REQUIRED, **identity, signature_trust_config=str(trust))


async def test_signed_twins_go_when_the_signature_is_checked(fetch: Fetch, tmp_path: Path, keys: Path) -> None:
    model = laid(tmp_path / "m", {"model.safetensors": b"x", "pytorch_model.bin": PICKLE})
    signing.Config().use_elliptic_key_signer(private_key=keys / "ours").sign(model, model / "model.sig")
    found = await fetch(
        files_below(model),
        **REQUIRED,
        signature_key=str(keys / "ours.pub"),
        formats="safetensors",
        pickle_policy="refuse",
    )
    assert found.keys() == {"model.safetensors", "model.sig"}


# cosign's bundles.


def signature(key: Path, content: bytes) -> bytes:
    loaded: Any = serialization.load_pem_private_key(key.read_bytes(), None)
    if isinstance(loaded, ec.EllipticCurvePrivateKey):
        return loaded.sign(content, ec.ECDSA(hashes.SHA256()))
    if isinstance(loaded, rsa.RSAPrivateKey):
        return loaded.sign(content, padding.PKCS1v15(), hashes.SHA256())
    return bytes(loaded.sign(content))


def sigstore(key: Path, content: bytes) -> bytes:
    digest = {"algorithm": "SHA2_256", "digest": base64.b64encode(hashlib.sha256(content).digest()).decode()}
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
            "messageSignature": {
                "messageDigest": digest,
                "signature": base64.b64encode(signature(key, content)).decode(),
            },
        }
    ).encode()


def older(key: Path, content: bytes) -> bytes:
    return json.dumps({"base64Signature": base64.b64encode(signature(key, content)).decode(), "cert": ""}).encode()


def bare(key: Path, content: bytes) -> bytes:
    return base64.b64encode(signature(key, content)) + b"\n"


@pytest.mark.parametrize("kind", ["ours", "rsa", "ed25519"])
@pytest.mark.parametrize(
    ("suffix", "bundle"),
    [(".sigstore.json", sigstore), (".bundle", older), (".cosign.bundle", older), (".sig", bare)],
    ids=["sigstore", "cosign", "cosign-in-full", "bare"],
)
async def test_blobs_that_are_signed_one_by_one_are_placed(
    fetch: Fetch, keys: Path, kind: str, suffix: str, bundle: Callable[[Path, bytes], bytes]
) -> None:
    model = {**FILES, **{f"{name}{suffix}": bundle(keys / kind, content) for name, content in FILES.items()}}
    assert await fetch(model, **REQUIRED, signature_key=str(keys / f"{kind}.pub")) == model


def by_sums(key: Path, files: Mapping[str, bytes] = FILES) -> dict[str, bytes]:
    told = summed(files)
    return {**files, "SHA256SUMS": told, "SHA256SUMS.sigstore.json": sigstore(key, told)}


async def test_signed_sums_vouch_for_the_model(fetch: Fetch, keys: Path) -> None:
    model = by_sums(keys / "ours")
    assert await fetch(model, **REQUIRED, signature_key=str(keys / "ours.pub")) == model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"SHA256SUMS.sigstore.json": None},
            "not signed by the key .*: SHA256SUMS, config.json, deep/empty, model.bin",
        ),
        ({"extra.bin": b""}, "not signed by the key .*: extra.bin; there is no model.sig"),
        ({"model.bin": b"weightz"}, "'model.bin' has the SHA-256 .*, and SHA256SUMS"),
        ({"model.bin": None}, "SHA256SUMS.* names 'model.bin', which is not there"),
        (
            {"model.bin": b"weightz", "SHA256SUMS": summed({**FILES, "model.bin": b"weightz"})},
            "SHA256SUMS.sigstore.json is not of 'SHA256SUMS' as it came, by the key .*ours.pub",
        ),
        ({"SHA256SUMS.sigstore.json": b"{}"}, "SHA256SUMS.sigstore.json is no bundle of a blob's signature"),
        ({"SHA256SUMS.sigstore.json": b"?"}, "SHA256SUMS.sigstore.json is no signature"),
    ],
    ids=["unsigned-sums", "extra", "changed", "missing", "changed-with-its-sum", "no-signature", "no-bundle"],
)
async def test_model_that_its_signed_sums_do_not_vouch_for_is_absent(
    fetch: Fetch, tmp_path: Path, keys: Path, change: Mapping[str, bytes | None], words: str
) -> None:
    model = {**by_sums(keys / "ours"), **change}
    with pytest.raises(FetchFailed, match=words):
        await fetch(
            {name: content for name, content in model.items() if content is not None},
            **REQUIRED,
            signature_key=str(keys / "ours.pub"),
        )
    assert not (tmp_path / "target").exists()


async def test_blob_that_another_signed_is_absent(fetch: Fetch, tmp_path: Path, keys: Path) -> None:
    with pytest.raises(FetchFailed, match=r"SHA256SUMS\.sigstore\.json is not of 'SHA256SUMS' as it came"):
        await fetch(by_sums(keys / "theirs"), **REQUIRED, signature_key=str(keys / "ours.pub"))
    assert not (tmp_path / "target").exists()


# Settings.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "set one of SERVERY_STORAGE_SIGNATURE_KEY"),
        ({"signature_key": "/nothing.pub"}, "/nothing.pub: no such file"),
        ({"signature_key": "/nothing.pub", "signature_certificates": "/nothing"}, "set one of"),
        ({"signature_identity": "a@b.example"}, "set one of"),
    ],
    ids=["nobody", "no-file", "two-ways", "no-issuer"],
)
def test_settings_that_do_not_say_who_signs_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        Engine({}, Settings(**REQUIRED, **settings))


def test_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, keys: Path) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "servery_storage.signatures", raising=False)
    with pytest.raises(Refused, match=r"model_signing is not installed: install .*\[signatures\]"):
        Engine({}, Settings(**REQUIRED, signature_key=str(keys / "ours.pub")))


async def test_key_that_is_none_is_said(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"hello")
    with pytest.raises(FetchFailed, match="key is no public key"):
        await fetch(FILES, **REQUIRED, signature_key=str(tmp_path / "key"))


async def test_model_that_is_there_is_looked_at_again_by_another_key(fetch: Fetch, keys: Path) -> None:
    model = by_sums(keys / "ours")
    await fetch(model, **REQUIRED, signature_key=str(keys / "ours.pub"))
    with pytest.raises(FetchFailed, match="is not of 'SHA256SUMS'"):
        await fetch(model, **REQUIRED, signature_key=str(keys / "theirs.pub"))
