"""``servery validate``: everything that is wrong with the manifests."""

from __future__ import annotations

import sys

import typer
from servery_sdk.errors import ServeryError

from servery.offline import objections, offline
from servery.options import Catalogs, Files, InNamespace, Mode, say


def command(
    filename: Files, *, catalog: Catalogs = None, mode: Mode = None, namespace: InNamespace = "default"
) -> None:
    """Print all errors of all manifests at once; exit 1 if there is one."""
    decisions = offline(filename, catalog or (), mode=mode, namespace=namespace, lenient=True)
    wrong = len(decisions.problems)
    sys.stdout.writelines(f"{problem}\n" for problem in decisions.problems)
    for manifest in decisions.manifests:
        found = objections(manifest, decisions)
        if found is not None:
            wrong += 1
            sys.stdout.write(f"{manifest['kind']} {manifest['metadata']['name']}:\n")
            sys.stdout.writelines(f"  {line}\n" for line in found.splitlines())
    checked = len(decisions.manifests) + len(decisions.problems)
    say(f"{checked} manifests, {wrong} wrong")
    if not checked:
        raise ServeryError(f"nothing to validate in {', '.join(filename)}")
    if wrong:
        raise typer.Exit(1)
