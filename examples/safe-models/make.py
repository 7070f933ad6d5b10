"""Make the models of this example: ``python examples/safe-models/make.py``.

``signed`` is the iris model with a signature of all its files; ``changed`` is the same, and somebody has put another model
behind the signature; ``harmful`` is a pickle that runs a command when it is loaded. The private key is thrown away.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing

HERE = Path(__file__).parent
IRIS = HERE.parent / "sklearn-iris" / "model" / "model.joblib"
OTHER = HERE.parent / "sklearn-many-models" / "models" / "tree" / "model.joblib"


class Harm:
    """Whoever unpickles it runs a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("echo the model runs a command",)


def sign(model: Path) -> None:
    """Write ``model.sig`` into the folder; the public key goes beside this program and into the cluster's policy."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_key().public_bytes(serialization.Encoding.PEM, public).decode()
    (HERE / "models.pub").write_text(pem)
    policy = (HERE / "policy.yaml").read_text()
    indented = "".join(f"    {line}\n" for line in pem.splitlines())
    (HERE / "policy.yaml").write_text(re.sub(r"(?<=models.pub: \|\n)(    .*\n)+", indented, policy))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(private)
        file.flush()
        signing.Config().use_elliptic_key_signer(private_key=Path(file.name)).sign(model, model / "model.sig")


def main() -> None:
    """Write the three folders."""
    for name in ("signed", "changed", "harmful"):
        shutil.rmtree(HERE / name, ignore_errors=True)
    (HERE / "signed").mkdir()
    shutil.copy(IRIS, HERE / "signed" / "model.joblib")
    sign(HERE / "signed")
    shutil.copytree(HERE / "signed", HERE / "changed")
    shutil.copy(OTHER, HERE / "changed" / "model.joblib")
    (HERE / "harmful").mkdir()
    (HERE / "harmful" / "model.joblib").write_bytes(pickle.dumps(Harm()))


if __name__ == "__main__":
    main()
