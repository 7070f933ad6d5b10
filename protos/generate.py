"""Print the Python stubs of ``protos/`` into the sdk; ``--check`` only compares.

The messages go into a descriptor pool of their own: ``kserve`` and ``tritonclient`` define ``inference.*`` in the
default one, and a process may hold them all.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
STUBS = PROTOS.parent / "libs" / "sdk" / "src" / "servery_sdk" / "protos"
PACKAGE = "servery_sdk.protos"


def generate(target: Path) -> None:
    """Write the stubs of every proto below ``target``."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    command = ["protoc", f"-I{PROTOS}", f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"]
    if protoc.main([*command, *sources]):
        raise SystemExit(1)
    for path in sorted(target.rglob("*_pb2*.py*")):
        text = path.read_text()
        for source in sources:
            module = source.removesuffix(".proto").replace("/", ".")
            package, _, name = module.rpartition(".")
            text = text.replace(f"from {package} import {name}_pb2", f"from {PACKAGE}.{package} import {name}_pb2")
        text = text.replace("_descriptor_pool.Default()", "POOL").replace(
            "from google.protobuf import descriptor_pool as _descriptor_pool", f"from {PACKAGE}.pool import POOL"
        )
        path.write_text(text)
    for folder in {
        folder for path in target.rglob("*_pb2.py") for folder in path.parents if folder.is_relative_to(target)
    }:
        (folder / "__init__.py").touch()


def stubs(folder: Path) -> dict[str, str]:
    """Return the text of every stub below ``folder`` by its relative path."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*_pb2*"))
        if path.suffix in {".py", ".pyi"}
    }


def main() -> None:
    """Generate, or compare and fail when the committed stubs have drifted."""
    if "--check" not in sys.argv:
        generate(STUBS)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        if stubs(Path(folder)) != stubs(STUBS):
            raise SystemExit("the stubs do not match protos/; run: tox run -e protos")


if __name__ == "__main__":
    main()
