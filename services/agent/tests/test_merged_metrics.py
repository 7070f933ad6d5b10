"""One page of metrics for the agent, the component and Knative's queue-proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from agents import PATIENCE_SECONDS, agent
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from servery_agent.merging import NotMetrics, Page, merged, parsed
from servery_http.client import Client
from servery_http.messages import Handler, Request, Response
from servery_http.server import Server

CONTAINER = """# HELP process_cpu_seconds_total Of the server.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 1.5
# TYPE seconds histogram
seconds_bucket{le="1.0",model="a \\"}b"} 1
seconds_bucket{le="+Inf",model="a \\"}b"} 2
seconds_sum{model="a \\"}b"} 3
seconds_count{model="a \\"}b"} 2
"""
QUEUE_PROXY = """# HELP process_cpu_seconds_total Of the proxy.
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 2.5
# TYPE revision_request_count counter
revision_request_count{revision_name="r",response_code="200"} 7 1700000000000
"""


DAEMON = """# TYPE servery_storage_models gauge
servery_storage_models{held="true"} 3
"""


class Told:
    """A program with metrics, which may fail."""

    def __init__(self, text: str) -> None:
        self.text, self.status, self.hangs = text, 200, False
        self.server = Server(self._route, drain_seconds=0)

    def _route(self, _method: str, path: str) -> Handler | None:
        return self._answer if path in {"/metrics", "/own/metrics"} else None

    async def _answer(self, _request: Request) -> Response:
        if self.hangs:
            await asyncio.Event().wait()
        return Response(self.status, self.text.encode(), b"text/plain")


@pytest.fixture
async def container() -> AsyncIterator[Told]:
    told = Told(CONTAINER)
    async with told.server.running():
        yield told


@pytest.fixture
async def queue_proxy() -> AsyncIterator[Told]:
    told = Told(QUEUE_PROXY)
    async with told.server.running():
        yield told


@pytest.fixture
async def daemon() -> AsyncIterator[Told]:
    told = Told(DAEMON)
    async with told.server.running():
        yield told


def samples(families: Sequence[Metric]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


async def scraped(port: int) -> list[Metric]:
    async with Client() as client:
        answer = await client.request("GET", f"http://127.0.0.1:{port}/metrics", timeout_seconds=PATIENCE_SECONDS)
        assert answer.status == 200
        return list(text_string_to_metric_families(answer.body.decode()))


def labels(**named: str) -> frozenset[tuple[str, str]]:
    return frozenset(named.items())


async def test_metrics_of_all_in_the_pod_are_told_with_the_agents_on_one_port(
    container: Told, queue_proxy: Told, daemon: Told
) -> None:
    variables = {
        "KSERVE_CONTAINER_PROMETHEUS_METRICS_PORT": str(container.server.port),
        "KSERVE_CONTAINER_PROMETHEUS_METRICS_PATH": "/own/metrics",
        "K_SERVICE": "s",
        "K_CONFIGURATION": "c",
        "K_REVISION": "r",
    }
    knative = {"service_name": "s", "configuration_name": "c", "revision_name": "r"}
    flags = (
        f"--queue-proxy-metrics-port={queue_proxy.server.port}",
        f"--storage-metrics-port={daemon.server.port}",
        "--metrics-timeout-seconds=1",
    )
    async with agent(*flags, **variables) as running:
        families = await scraped(running.metrics_port)
        assert len({family.name for family in families}) == len(families)
        found = samples(families)
        assert found["process_cpu_seconds_total", labels(**knative)] == 1.5
        assert found["process_cpu_seconds_total", labels()] == 2.5
        assert found["seconds_sum", labels(model='a "}b', **knative)] == 3
        assert found["servery_agent_connections", labels(**knative)] == 0
        assert found["servery_storage_models", labels(held="true", **knative)] == 3
        up = "servery_agent_metrics_source_up"
        assert found[up, labels(source="component", **knative)] == 1
        # One of them fails, in each way: the other is told all the same.
        for break_it in ("status", "text", "hangs", "gone"):
            if break_it == "status":
                container.status = 500
            elif break_it == "text":
                container.status, container.text = 200, "<html>no</html>"
            elif break_it == "hangs":
                container.hangs = True
            else:
                await container.server.stop()
            found = samples(await scraped(running.metrics_port))
            assert found["process_cpu_seconds_total", labels()] == 2.5
            assert ("seconds_sum", labels(model='a "}b', **knative)) not in found
            assert found[up, labels(source="component", **knative)] == 0
            assert found[up, labels(source="queue-proxy", **knative)] == 1


def test_series_of_two_programs_that_look_the_same_are_told_apart() -> None:
    pages = [
        parsed(Page(source=name, text=f'# TYPE a gauge\na{{x="1"}} {number}\n')) for number, name in enumerate("pq")
    ]
    assert merged(pages) == '# TYPE a gauge\na{x="1"} 0\na{x="1",source="q"} 1\n'


@pytest.mark.parametrize("line", ["<html>", "a{b} 1", 'a{b="} 1', "a", "1a 2", "{} 1"])
def test_what_is_no_metric_is_said_with_its_line(line: str) -> None:
    with pytest.raises(NotMetrics, match="no metric: "):
        parsed(Page(source="p", text=f"good 1\n{line}\n"))


_NAMES = st.sampled_from(["a", "b", "c_total", "a_sum"])
_VALUES = st.sampled_from(["", "v", 'a "}', "\\", "one\ntwo", "{,}=", "\u2028"])
_LABELS = st.lists(st.tuples(st.sampled_from(["x", "y"]), _VALUES), unique_by=lambda one: one[0]).map(sorted).map(tuple)


@given(st.lists(st.dictionaries(st.tuples(_NAMES, _LABELS), st.integers(-1_000_000, 1_000_000))))
def test_no_number_is_lost_and_no_series_told_twice(
    programs: list[dict[tuple[str, tuple[tuple[str, str], ...]], int]],
) -> None:
    def written(pairs: tuple[tuple[str, str], ...]) -> str:
        escaped = ((name, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, text in pairs)
        return ",".join(f'{name}="{text}"' for name, text in escaped)

    pages = []
    for number, program in enumerate(programs):
        lines = [f"{name}{{{written(pairs)}}} {value}" for (name, pairs), value in program.items()]
        pages.append(parsed(Page(source=f"p{number}", text="\n".join(lines))))
    found = samples(list(text_string_to_metric_families(merged(pages))))
    assert sorted(found.values()) == sorted(float(one) for program in programs for one in program.values())
