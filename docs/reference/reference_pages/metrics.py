"""The page of the metrics of the predictor, the agent, the storage daemon and the controller."""

from __future__ import annotations

import tempfile
from pathlib import Path

from prometheus_client import CollectorRegistry
from servery_agent.batcher.counts import Counts
from servery_agent.metrics import Metrics as AgentMetrics
from servery_controller.metrics import FetchMetrics
from servery_controller.planning.storage import INIT_CONTAINER
from servery_predictor.batching.loop import Ran
from servery_predictor.metrics import Metrics, known
from servery_sdk.fetches import FetchReport
from servery_sdk.kinds import POD
from servery_sdk.manifests import Manifest, Namespace, ObjectRef
from servery_storage.engine import Engine
from servery_storage.metrics import Metrics as StorageMetrics
from servery_storage.settings import Settings
from servery_storage.store import Store

from reference_pages.markdown import table


def page() -> str:
    """Return tables of what the predictor counts: under its own names, and under those of others."""
    metrics = Metrics(CollectorRegistry())
    own = [
        [
            f"`{family.name}{'_total' if family.kind == 'counter' else ''}`",
            family.kind,
            ", ".join(f"`{label}`" for label in family.label_names),
            family.documentation,
        ]
        for family in metrics.families()
    ]
    metrics.requests.labels("m", "v2", "OK").inc()
    metrics.requests.labels("m", "v2", "INTERNAL").inc()
    metrics.request_seconds.labels("m", "v2").observe(0)
    metrics.queue_requests.labels("m").set(0)
    metrics.ran("m", Ran(waits=[0.0], rows=1, seconds=0.0))
    others = [
        [
            f"`{metric.name}`",
            metric.type if metric.type != "unknown" else "counter or gauge, untyped",
            ", ".join(f"`{label}`" for label in metric.samples[0].labels if label != "le"),
            metric.documentation,
        ]
        for metric in known(metrics, "host")
    ]
    columns = ["metric", "type", "labels", "meaning"]
    return (
        "# Metrics\n\n## servery-predictor\n\nAt `/metrics` of the HTTP port. Units are in the names; a histogram "
        "has `_bucket`, `_sum` and `_count`. With several workers, whichever answers has added up the numbers of all; "
        "what a worker has counted outlives it.\n\n"
        f"{table(columns, own)}\n\nThe same numbers under the names that dashboards of KServe, Triton and TorchServe "
        f"ask for:\n\n{table(columns, others)}\n\n## servery-agent\n\nAt `/metrics` of `--metrics-port`; what is asked of "
        f"its other port goes to the component.\n\n{table(columns, _of_the_agent())}\n\n## servery-storage\n\nAt `/metrics` of "
        "`servery-storage serve --metrics-port`. An init container has ended before anybody could ask it: what it fetched is "
        f"with the controller.\n\n{table(columns, _of_the_storage_daemon())}\n\n## servery-controller\n\nAt `/metrics` of "
        "`--http-port`, of the controller that leads: of each pod that is there, how its models came.\n\n"
        f"{table(columns, _of_the_controller())}"
    )


def _of_the_agent() -> list[list[str]]:
    metrics = AgentMetrics()
    metrics.observe(200, 0.0)
    metrics.observe_call("OK", 0.0)
    metrics.batches = Counts()
    metrics.batches.on_apart("wrong")
    return [
        [
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            "" if family.type != "counter" else ", ".join(f"`{label}`" for label in family.samples[0].labels),
            family.documentation,
        ]
        for family in metrics.collect()
    ]


def _of_the_storage_daemon() -> list[list[str]]:
    with tempfile.TemporaryDirectory() as root:
        metrics = StorageMetrics(Store(Path(root), Engine({}, Settings())))
        metrics.begin()
        metrics.end("OK", FetchReport())
        return _rows(metrics.registry)


def _of_the_controller() -> list[list[str]]:
    status = {"name": INIT_CONTAINER, "state": {"terminated": {"exitCode": 0, "message": FetchReport().text()}}}
    pod: Manifest = {"metadata": {"name": "p"}, "status": {"initContainerStatuses": [status]}}
    service = ObjectRef(POD, Namespace("n"), "s")
    registry = CollectorRegistry()
    registry.register(FetchMetrics(lambda: [(service, pod)]))
    return _rows(registry)


def _rows(registry: CollectorRegistry) -> list[list[str]]:
    return [
        [
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            ", ".join(f"`{label}`" for label in family.samples[0].labels if label != "le"),
            family.documentation,
        ]
        for family in registry.collect()
    ]
