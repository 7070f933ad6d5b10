"""Milliseconds to parse, plan and render a service, and to say how it is: what a reconcile costs without a cluster.

One core, a thousand different services and as many runtimes as asked for: ``uv run python bench/planner.py``.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from servery_controller import planning, render
from servery_controller.planning import PlanningSettings
from servery_sdk import kinds, plugins
from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model import Capability, Catalog, DeploymentPlan, Observed
from servery_sdk.plugins import Plugins

NOW = "2026-01-01T00:00:00Z"


def service(number: int) -> Manifest:
    """Return one of many services: sources, scaling, resources and how the runtime is found differ."""
    model: dict[str, Any] = {"modelFormat": {"name": "sklearn"}, "storageUri": f"s3://models/m{number}"}
    if number % 4 == 1:
        model |= {"runtime": "servery-sklearn", "env": [{"name": "LEVEL", "value": "debug"}]}
    if number % 4 == 2:
        model |= {"storageUri": f"pvc://models/m{number}", "resources": {"limits": {"cpu": "2", "memory": "4Gi"}}}
    predictor: dict[str, Any] = {"minReplicas": 1 + number % 3, "maxReplicas": 5, "model": model}
    if number % 4 == 3:
        predictor |= {"nodeSelector": {"pool": "models"}, "tolerations": [{"key": "models", "operator": "Exists"}]}
    metadata = {"name": f"s{number}", "namespace": f"team-{number % 20}", "uid": str(number), "generation": 1}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {**metadata, "labels": {"team": str(number % 20)}},
        "spec": {"predictor": predictor},
    }


def runtime(number: int) -> Manifest:
    """Return a runtime of one namespace, which serves another format: it must be looked at, and is not chosen."""
    container = {"name": "kserve-container", "image": f"acme/r{number}:1", "args": ["--model_name={{.Name}}"]}
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"r{number}", "namespace": f"team-{number % 20}"},
        "spec": {
            "containers": [container],
            "supportedModelFormats": [{"name": f"format-{number}", "version": "1", "autoSelect": True}],
        },
    }


def running(plan: DeploymentPlan) -> Observed:
    """Return what a cluster says of a service that runs."""
    workload = plan.workloads[0]
    status = {"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}
    deployment = {"metadata": {"name": workload.name, "generation": 1}, "status": status}
    pod = {
        "metadata": {"name": f"{workload.name}-0", "labels": dict(workload.pod_labels)},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    return Observed(objects={ObjectRef(kinds.DEPLOYMENT, plan.ref.namespace, workload.name): deployment}, pods=(pod,))


def timed(work: Callable[[Any], Any], items: Sequence[Any]) -> tuple[list[Any], list[float]]:
    """Return what ``work`` made of each item, and the milliseconds that each took."""
    made, taken = [], []
    for item in items:
        began = time.perf_counter()
        made.append(work(item))
        taken.append((time.perf_counter() - began) * 1e3)
    return made, taken


def stages(manifests: Sequence[Manifest], catalog: Catalog, installed: Plugins) -> dict[str, list[float]]:
    """Return the milliseconds of each service in each stage."""
    settings = PlanningSettings()
    dialect = installed.dialects["kserve"]
    taken: dict[str, list[float]] = {}
    services, taken["parse"] = timed(lambda manifest: dialect.parse(manifest, catalog), manifests)
    plans, taken["plan"] = timed(lambda parsed: planning.plan(parsed, catalog, settings), services)
    mode = installed.modes[plans[0].mode]
    desired, taken["render"] = timed(mode.render, plans)
    seen = [(plan, objects, running(plan)) for plan, objects in zip(plans, desired, strict=True)]
    statuses, taken["observe"] = timed(
        lambda found: dialect.status(planning.observe(*found, mode.readiness, now=NOW)), seen
    )
    if not all(status["modelStatus"]["transitionStatus"] == "UpToDate" for status in statuses):
        raise SystemExit("a service that runs is not said to run")
    return taken


def main() -> None:
    """Print the machine, the versions, and the times."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--services", type=int, default=1000)
    flags.add_argument("--runtimes", type=int, default=40, help="ServingRuntimes beside those that plugins bring")
    flags.add_argument("--rounds", type=int, default=5, help="the median round counts")
    options = flags.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    installed = plugins.load()
    manifests = [service(number) for number in range(options.services)]
    runtimes = [runtime(number) for number in range(options.runtimes)]
    gc.freeze()
    rounds: list[dict[str, list[float]]] = []
    for _ in range(options.rounds):
        (catalog,), catalog_taken = timed(
            lambda found: render.catalog_from(found, installed, frozenset({Capability.INGRESS})), [runtimes]
        )
        rounds.append({"catalog": catalog_taken, **stages(manifests, catalog, installed)})
    print(f"{platform.machine()}, {len(cores)} cores, pinned to one, Python {platform.python_version()}")
    print(f"pydantic {version('pydantic')}, {len(manifests):,} services, {len(runtimes)} ServingRuntimes\n")
    print(f"{'milliseconds':<14}{'mean':>8}{'median':>8}{'99 %':>8}{'all':>10}")
    for stage in rounds[0]:
        found = sorted((found[stage] for found in rounds), key=sum)[options.rounds // 2]
        ranked = sorted(found)
        spread = (statistics.mean(ranked), statistics.median(ranked), ranked[int(len(ranked) * 0.99)])
        print(f"{stage:<14}" + "".join(f"{value:>8.3f}" for value in spread) + f"{sum(ranked):>10.0f}")


if __name__ == "__main__":
    main()
