"""One platform with real processes for a whole module of tests: a model takes seconds to load, a request none."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from servery.local.containers import Backoff
from servery.local.platform import Platform
from servery.sources import read_for_here
from servery_sdk import kinds, plugins
from servery_sdk.manifests import Namespace, ObjectRef
from stand_ins.gcs import buckets_served

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
IRIS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


class Local:
    """A platform on a thread of its own, so that clients of any kind can call it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, platform: Platform, directory: Path) -> None:
        self._loop = loop
        self.platform = platform
        self.directory = directory

    @property
    def url(self) -> str:
        return self.platform.url

    def call(self, work: Coroutine[Any, Any, Any], seconds: float = 90) -> Any:
        future: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(seconds)

    def up(self, *sources: str | Path, seconds: float = 90) -> None:
        async def work() -> None:
            refs = await self.platform.apply(read_for_here(map(str, sources)))
            await asyncio.gather(*(self.platform.ready(ref, give_up=True) for ref in refs))

        self.call(work(), seconds)

    def apply(self, *sources: str | Path) -> None:
        self.call(self.platform.apply(read_for_here(map(str, sources))))

    def down(self, name: str) -> None:
        kind = next(iter(self.platform.plugins.dialects["kserve"].services))
        self.call(self.platform.delete(ObjectRef(kind, Namespace("default"), name)))

    def service(self, name: str) -> Any:
        return next(s for s in self.platform.services() if s["metadata"]["name"] == name)

    def pods(self, name: str) -> list[Any]:
        found = self.call(self.platform.api.list(kinds.POD)).items
        return [pod for pod in found if pod["metadata"]["name"].startswith(f"{name}-predictor-")]

    def grpc_address(self, name: str) -> str:
        return f"{self.pods(name)[0]['status']['podIP']}:8081"


@pytest.fixture(scope="session")
def make_local() -> Iterator[Callable[..., Local]]:
    stops: list[Callable[[], None]] = []

    def make(directory: Path, *, mode: str | None = None) -> Local:
        started: Future[Local] = Future()

        async def main() -> None:
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            platform = Platform(plugins.load(), directory, mode=mode, backoff=Backoff(first_seconds=0.2))
            try:
                async with platform.running():
                    stops.append(lambda: (loop.call_soon_threadsafe(ended.set), thread.join(60))[0])
                    started.set_result(Local(loop, platform, directory))
                    await ended.wait()
            except BaseException as error:
                if not started.done():
                    started.set_exception(error)
                raise

        thread = threading.Thread(target=lambda: asyncio.run(main()), name="local-platform")
        thread.start()
        return started.result(30)

    yield make
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def local(make_local: Callable[[Path], Local], tmp_path_factory: pytest.TempPathFactory) -> Local:
    return make_local(tmp_path_factory.mktemp("platform"))


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for what processes do in their own time."""

    def wait(holds: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := holds():
                return found
            time.sleep(0.02)
        raise AssertionError("it did not come true in time")

    return wait


@pytest.fixture
def ask(local: Local) -> Callable[..., Any]:
    def post(name: str, request: Any) -> Any:
        asked = urllib.request.Request(
            f"{local.url}/v1/models/{name}:predict",
            data=json.dumps(request).encode(),
            headers={"Host": f"{name}.default.localhost"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.loads(answer.read())

    return post


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has the environment say where Google Cloud Storage is, with the model that KServe's pages name."""
    with buckets_served() as buckets:
        model = (EXAMPLES / "sklearn-iris" / "model" / "model.joblib").read_bytes()
        buckets.put("kfserving-examples/models/sklearn/1.0/model/model.joblib", model)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.url)
        yield
