"""What models did since the server started, from what ``/metrics`` counts: of all workers together.

Source: Triton's statistics extension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servery_predictor.counting import Labels
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Entry, Repository

_NANOSECONDS = 1_000_000_000
_NEVER: Mapping[str, int] = {"count": 0, "ns": 0}


def statistics(
    repository: Repository, metrics: Metrics, name: str = "", version: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """Return the statistics of one model, or of all that are loaded where ``name`` is empty.

    Requests are counted by model, not by version: one of several versions has the numbers of all under its newest.

    Raises:
        UnknownModel: No such model or version.
        ModelNotReady: It was named and is not loaded.
    """
    if name:
        repository.batcher(name, version)
        entries = [repository.entry(name, version)]
    else:
        entries = [entry for entry in repository.entries() if entry.batcher is not None]
    return {"model_stats": [_of(entry, metrics) for entry in entries]}


def _of(entry: Entry, metrics: Metrics) -> dict[str, Any]:
    model = (entry.name,)
    answered = sum(_values(metrics.requests.read(), entry.name, lambda labels: labels[2] == "OK"))
    failed = sum(_values(metrics.requests.read(), entry.name, lambda labels: labels[2] != "OK"))
    seconds = sum(_values(metrics.request_seconds.read(), entry.name, lambda _: True))
    failed_seconds = metrics.failed_seconds.read().get(model, [0.0])[0]
    queued = metrics.queue_seconds.read().get(model, [0.0])
    rows = metrics.batch_rows.read().get(model, [0.0])
    asked = sum(metrics.queue_seconds.read().get(model, [0.0])[:-1])
    computed = metrics.shared_seconds.read().get(model, [0.0])[0]
    return {
        "name": entry.name,
        "version": entry.versions[-1] if entry.versions else "1",
        "last_inference": round(metrics.batch_sizes.last(entry.name) * 1000),
        "inference_count": int(rows[-1]),
        "execution_count": int(sum(rows[:-1])),
        "inference_stats": {
            "success": _duration(answered, seconds - failed_seconds),
            "fail": _duration(failed, failed_seconds),
            "queue": _duration(asked, queued[-1]),
            # Putting requests together and taking answers apart are parts of a call, and are not timed apart.
            "compute_input": _duration(asked, 0.0),
            "compute_infer": _duration(asked, computed),
            "compute_output": _duration(asked, 0.0),
            "cache_hit": _NEVER,
            "cache_miss": _NEVER,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(calls, 0.0),
                "compute_infer": _duration(calls, taken),
                "compute_output": _duration(calls, 0.0),
            }
            for size, calls, taken in metrics.batch_sizes.read(entry.name)
        ],
    }


def _values(series: Mapping[Labels, list[float]], model: str, wanted: Any) -> Iterator[float]:
    # Of a histogram and of a counter, the sum stands last.
    return (numbers[-1] for labels, numbers in series.items() if labels[0] == model and wanted(labels))


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": max(0, round(seconds * _NANOSECONDS))}
