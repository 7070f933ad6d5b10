"""``servery convert``: the same service in the words of another dialect."""

from __future__ import annotations

from typing import Annotated

import typer
from servery_controller.convert import convert
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest

from servery.offline import offline
from servery.options import Catalogs, Files, InNamespace, Mode, Output, print_data, say


def command(
    filename: Files,
    *,
    to: Annotated[str, typer.Option("--to", help="The dialect to write; servery plugins lists them.")],
    catalog: Catalogs = None,
    mode: Mode = None,
    namespace: InNamespace = "default",
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.YAML,
) -> None:
    """Print every service in another dialect's words, once it is proven that the same will run; else nothing."""
    decisions = offline(filename, catalog or (), mode=mode, namespace=namespace)
    dialect = decisions.plugins.dialects.get(to)
    if dialect is None:
        known = ", ".join(sorted(decisions.plugins.dialects))
        raise typer.BadParameter(f"{to!r} is no dialect; there are: {known}", param_hint="--to")
    services = list(decisions.services())
    if not services:
        raise ServeryError("there is no service in these files")
    documents: list[Manifest] = []
    wrong = 0
    for service in services:
        name = f"{service['kind']} {service['metadata']['name']}"
        try:
            made = convert(service, dialect, decisions.catalog, decisions.plugins, decisions.settings)
        except ServeryError as error:
            wrong += 1
            say(f"{name}:\n" + "\n".join(f"  {line}" for line in str(error).splitlines()))
            continue
        documents += made.manifests
        if made.spelled_out:
            reasons = "\n".join(f"  {line}" for line in made.spelled_out)
            say(f"{name}: written as whole pods, since\n{reasons}")
    if wrong:
        raise typer.Exit(1)
    print_data(documents, output)
