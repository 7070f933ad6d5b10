"""One page for the metrics of a pod: the server's are asked for where annotations say, and where what stands in for it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from servery_http.client import Client

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn-metrics" / "service.yaml"
ROWS = [[6.8, 2.8, 4.8, 1.4]]


async def _page(pod: Any) -> dict[str, float]:
    """Return, by its name, the sum of each series that the pod's annotations lead Prometheus to."""
    told = pod["metadata"]["annotations"]
    url = f"http://{pod['status']['podIP']}:{told['prometheus.io/port']}{told['prometheus.io/path']}"
    async with Client() as client:
        text = (await client.request("GET", url)).body.decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A service on a server of KServe's whose metrics have a port of their own in its image."""
    service = yaml.safe_load(EXAMPLE.read_text())
    service["metadata"]["name"] = "own-metrics"
    del service["metadata"]["annotations"]["prometheus.kserve.io/port"]
    del service["metadata"]["annotations"]["prometheus.kserve.io/path"]
    service["spec"]["predictor"]["model"] |= {
        "runtime": "own-metrics",
        "storageUri": (EXAMPLE.parents[1] / "sklearn-iris" / "model").as_uri(),
    }
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "own-metrics"},
        "spec": {
            "annotations": {"prometheus.kserve.io/port": "8082", "prometheus.kserve.io/path": "/own"},
            "supportedModelFormats": [{"name": "sklearn"}],
            "protocolVersions": ["v1", "v2"],
            "containers": [
                {
                    "name": "kserve-container",
                    "image": "kserve/sklearnserver:latest",
                    "args": ["--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080"],
                }
            ],
        },
    }
    path = tmp_path / "service.yaml"
    path.write_text(yaml.safe_dump_all([runtime, service]))
    return path


@pytest.mark.parametrize("name", ["sklearn-metrics", "own-metrics"])
def test_page_tells_the_requests_of_agent_and_server(
    local: Local, ask: Callable[[str, Any], Any], stand_in: Path, name: str
) -> None:
    local.up(EXAMPLE if name == "sklearn-metrics" else stand_in, seconds=200)
    assert ask(name, {"instances": ROWS}) == {"predictions": [1]}
    found = asyncio.run(_page(local.pods(name)[0]))
    assert found["servery_agent_metrics_source_up"] == 1
    assert found["servery_agent_requests_total"] >= 1
    assert found["servery_predictor_requests_total"] >= 1
    local.down(name)
