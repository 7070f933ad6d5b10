"""Agent, storage daemon and model server as the three processes of a pod; the ConfigMap is swapped as a kubelet does it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import joblib
import pytest
from ports import free_ports
from servery_http.client import Client, ConnectFailed
from servery_sdk.protos.servery.control.v1 import control_pb2 as control
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as control_stubs
from sklearn.dummy import DummyClassifier

PATIENCE_SECONDS = 60
SOON_SECONDS = 2.0
ROWS = {"instances": [[1.0]]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models that always answer their number: ``0`` to ``11``, and ``broken``."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(12):
        (folder / str(number)).mkdir()
        model = DummyClassifier(strategy="constant", constant=number).fit([[0.0]] * 12, list(range(12)))
        joblib.dump(model, folder / str(number) / "model.joblib")
    (folder / "broken").mkdir()
    (folder / "broken" / "model.joblib").write_bytes(b"no model")
    return folder


class ConfigMap:
    """A mounted ConfigMap. Source: k8s.io/kubernetes pkg/volume/util/atomic_writer.go."""

    def __init__(self, folder: Path, sources: Path) -> None:
        self.folder, self._sources, self._count = folder, sources, 0
        folder.mkdir()
        self.write("[]")
        (folder / "models.json").symlink_to("..data/models.json")

    def write(self, text: str) -> None:
        self._count += 1
        new = self.folder / f"..{self._count}"
        new.mkdir()
        (new / "models.json").write_text(text)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        shutil.rmtree(self.folder / f"..{self._count - 1}", ignore_errors=True)

    def assign(self, **models: str) -> None:
        """Assign models by name, each with what lies in ``sources``."""
        self.write(json.dumps([entry(name, f"file://{self._sources}/{model}") for name, model in models.items()]))


def entry(name: str, uri: str, memory: str = "1Mi") -> dict[str, Any]:
    return {"modelName": name, "modelSpec": {"storageUri": uri, "framework": "sklearn", "memory": memory}}


class Pod:
    """The three processes; each can be ended and started again."""

    def __init__(self, folder: Path, config_map: ConfigMap, *flags: str) -> None:
        self.models = folder / "models"
        self.models.mkdir()
        self._log = (folder / "log").open("ab")
        self.port, http, rpc, metrics = free_ports(4)
        socket_path = folder / "s"
        self._commands = {
            "storage": [
                *("-c", "from servery_storage.commands import app; app()", "serve"),
                *("--socket", str(socket_path), "--root", str(self.models)),
            ],
            "server": [
                *("-m", "servery_predictor.cli", "--runtime=sklearn", "--multi-model-server=true", "--host=127.0.0.1"),
                *(f"--model_dir={self.models}", f"--http_port={http}", f"--grpc_port={rpc}"),
            ],
            "agent": [
                *("-m", "servery_agent.cli", "--enable-puller", f"--config-dir={config_map.folder}"),
                *(f"--model-dir={self.models}", f"--storage-socket={socket_path}", "--host=127.0.0.1"),
                *(f"--port={self.port}", f"--metrics-port={metrics}"),
                *(f"--component-port={http}", f"--component-grpc-port={rpc}", *flags),
            ],
        }
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self.client = Client()

    async def start(self, *names: str) -> None:
        for name in names or self._commands:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable, *self._commands[name], stdout=self._log, stderr=self._log
            )

    async def end(self, *names: str) -> None:
        for name in names or list(self._running):
            process = self._running.pop(name)
            process.kill()
            await process.wait()

    async def close(self) -> None:
        await self.end()
        self._log.close()

    async def ask(self, name: str) -> int | str:
        """Return the number of the model that answers under ``name``, or the answer's status."""
        url = f"http://127.0.0.1:{self.port}/v1/models/{name}:predict"
        try:
            answer = await self.client.request("POST", url, body=json.dumps(ROWS).encode())
        except ConnectFailed:
            return "nobody"
        return int(json.loads(answer.body)["predictions"][0]) if answer.status == 200 else str(answer.status)

    async def is_ready(self) -> bool:
        """Return what the agent says to a probe."""
        url = f"http://127.0.0.1:{self.port}/"
        try:
            answer = await self.client.request("GET", url, headers=[(b"k-network-probe", b"queue")])
        except ConnectFailed:
            return False
        return answer.status == 200

    async def until(self, within_seconds: float = PATIENCE_SECONDS, **wanted: int | str) -> float:
        """Return the seconds until every name answered as wanted."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        found: dict[str, int | str] = {}
        try:
            async with asyncio.timeout(within_seconds):
                while found != wanted:
                    await asyncio.sleep(0.01)
                    found = {name: await self.ask(name) for name in wanted}
        except TimeoutError:
            pytest.fail(f"found {found}, wanted {wanted}: {Path(self._log.name).read_text()[-3000:]}")
        return loop.time() - began


@pytest.fixture
def folder() -> Iterator[Path]:
    """A Unix socket's path is short."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def config_map(folder: Path, sources: Path) -> ConfigMap:
    return ConfigMap(folder / "configs", sources)


@pytest.fixture
async def make_pod(folder: Path, config_map: ConfigMap) -> AsyncIterator[Callable[..., Awaitable[Pod]]]:
    made: list[Pod] = []

    async def make(*flags: str) -> Pod:
        made.append(Pod(folder, config_map, *flags))
        await made[-1].client.__aenter__()
        await made[-1].start()
        return made[-1]

    yield make
    for pod in made:
        await pod.client.__aexit__(None, None, None)
        await pod.close()


@pytest.fixture
async def pod(make_pod: Callable[..., Awaitable[Pod]], config_map: ConfigMap) -> Pod:
    pod = await make_pod()
    config_map.assign(first="0")
    await pod.until(first=0)
    return pod


async def test_models_come_change_and_go_with_the_config_map(pod: Pod, config_map: ConfigMap) -> None:
    config_map.assign(**{f"m{number}": str(number) for number in range(10)})
    await pod.until(**{f"m{number}": number for number in range(10)}, first="404")
    config_map.assign(**{f"m{number}": str(number + 1) for number in range(5)})
    await pod.until(**{f"m{number}": number + 1 for number in range(5)}, m5="404", m9="404")
    async with asyncio.timeout(PATIENCE_SECONDS):
        kept = {f"m{number}" for number in range(5)}
        while {path.name for path in pod.models.glob("[!.]*")} != kept:  # noqa: ASYNC110  # a folder has no event
            await asyncio.sleep(0.01)


async def test_predictor_with_the_v2_repository_api_alone_holds_many(
    make_pod: Callable[..., Awaitable[Pod]], config_map: ConfigMap
) -> None:
    config_map.assign(first="0", second="1")
    pod = await make_pod("--component-models=v2")
    await pod.until(first=0, second=1)
    config_map.assign(second="2", third="3", bad="broken")
    await pod.until(first="404", second=2, third=3, bad="503")
    await pod.end("server")
    await pod.start("server")
    await pod.until(second=2, third=3)


async def test_change_of_an_artifact_leaves_no_moment_without_an_answer(pod: Pod, config_map: ConfigMap) -> None:
    answers: list[int | str] = []

    async def ask() -> None:
        while True:
            answers.append(await pod.ask("first"))

    asking = asyncio.create_task(ask())
    for number in (1, 2, 3):
        config_map.assign(first=str(number))
        await pod.until(first=number)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert answers == sorted(answers, key=int)
    assert set(answers) <= {0, 1, 2, 3}


async def test_broken_model_is_tried_again_and_its_neighbours_answer(
    pod: Pod, config_map: ConfigMap, sources: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "mended"
    shutil.copytree(sources / "broken", copied)
    config_map.write(json.dumps([entry("bad", copied.as_uri()), entry("good", (sources / "4").as_uri())]))
    await pod.until(good=4, bad="503")
    shutil.copy(sources / "7" / "model.joblib", copied / "model.joblib")
    await pod.until(good=4, bad=7)


async def test_pod_is_asked_only_when_its_first_models_are_there_or_cannot_be(
    make_pod: Callable[..., Awaitable[Pod]], config_map: ConfigMap
) -> None:
    config_map.assign(first="0", bad="broken")
    pod = await make_pod()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await pod.is_ready():  # noqa: ASYNC110  # a probe is asked again and again
            await asyncio.sleep(0.01)
    assert (await pod.ask("first"), await pod.ask("bad")) == (0, "503")
    config_map.assign(first="0", second="1")
    assert await pod.is_ready()


async def test_list_that_is_none_changes_nothing(pod: Pod, config_map: ConfigMap) -> None:
    config_map.write('[{"modelName": "first"}]')
    config_map.write("half a li")
    await pod.until(first=0)
    config_map.assign(first="0", second="2")
    await pod.until(first=0, second=2)


@pytest.mark.parametrize("name", ["storage", "server", "agent"])
async def test_each_process_may_die_and_come_again(pod: Pod, config_map: ConfigMap, name: str) -> None:
    await pod.end(name)
    config_map.assign(first="5", second="6")
    await pod.start(name)
    await pod.until(first=5, second=6)


class Controller(control_stubs.AssignmentsServicer):
    """Pushes what it is given, and keeps what it is told."""

    def __init__(self) -> None:
        self.pushes: asyncio.Queue[list[control.Assignment]] = asyncio.Queue()
        self.told: list[control.PodReport] = []

    async def Watch(self, reports: AsyncIterator[control.PodReport], context: Any) -> AsyncIterator[control.Assigned]:  # noqa: N802
        async def read() -> None:
            async for report in reports:
                self.told.append(report)

        reading = asyncio.create_task(read())
        try:
            while True:
                yield control.Assigned(models=await self.pushes.get())
        finally:
            reading.cancel()


@pytest.fixture
async def controller() -> AsyncIterator[tuple[Controller, int]]:
    server, controller = grpc.aio.server(), Controller()
    control_stubs.add_AssignmentsServicer_to_server(controller, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield controller, port
    await server.stop(0)


async def test_controller_pushes_and_is_told(
    make_pod: Callable[..., Awaitable[Pod]], controller: tuple[Controller, int], config_map: ConfigMap, sources: Path
) -> None:
    pushed, port = controller
    flags = [f"--controller-address=127.0.0.1:{port}", "--pod-name=p", "--pod-namespace=n", "--pod-service=s"]
    pod = await make_pod(*flags, f"--models-memory-bytes={2**20}")

    def push(**models: str) -> None:
        wanted = [
            control.Assignment(name=name, uri=f"file://{sources}/{model}", memory_bytes=2**19)
            for name, model in models.items()
        ]
        pushed.pushes.put_nowait(wanted)

    push(one="1")
    await pod.until(one=1)
    names = [f"m{number}" for number in range(2)]
    push(**dict.fromkeys(names, "3"))
    seconds = await pod.until(SOON_SECONDS, **dict.fromkeys(names, 3), one="404")
    assert seconds < SOON_SECONDS
    # What the file says does not count while the controller is there.
    config_map.assign(other="2")
    push(m0="3", bad="broken", much="4")
    async with asyncio.timeout(PATIENCE_SECONDS):
        states: dict[str, int] = {}
        while states != {"m0": control.LOADED, "bad": control.FAILED, "much": control.UNFIT}:
            await asyncio.sleep(0.01)
            states = {model.name: model.state for model in pushed.told[-1].models}
    who = pushed.told[0]
    assert (who.namespace, who.pod, who.service) == ("n", "p", "s")
    (bad,) = [model for model in pushed.told[-1].models if model.name == "bad"]
    assert "model.joblib" in bad.reason
    assert await pod.ask("other") == "404"
