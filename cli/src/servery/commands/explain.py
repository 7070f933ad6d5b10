"""``servery explain``: every decision about a service, in plain words."""

from __future__ import annotations

import sys

from servery_controller import render

from servery.offline import offline
from servery.options import Catalogs, Files, InNamespace, Mode


def command(
    filename: Files, *, catalog: Catalogs = None, mode: Mode = None, namespace: InNamespace = "default"
) -> None:
    """Say which runtime was chosen and why, which defaults were filled in, what each container does."""
    decisions = offline(filename, catalog or (), mode=mode, namespace=namespace)
    for service in decisions.services():
        plan = render.plan(service, decisions.catalog, decisions.plugins, decisions.settings)
        sys.stdout.write(f"{plan.ref.namespace}/{plan.ref.name}\n")
        sys.stdout.writelines(f"  {sentence}\n" for sentence in plan.explanations)
        if plan.url:
            sys.stdout.write(f"  answers at {plan.url} from outside, {plan.address} from inside the cluster\n")
