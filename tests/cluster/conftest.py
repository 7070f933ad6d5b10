from __future__ import annotations

import asyncio
import importlib.util
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from clusters import until
from servery_kube.client import KubeClient, connect
from servery_sdk import kinds, plugins
from servery_sdk.manifests import CLUSTER, Kind, Manifest, ObjectRef

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
CONTROLLER_TOKEN = "controller"  # see servers.py
CONTROLLER_USER = ("system:serviceaccount:servery-system:servery-controller", "system:serviceaccounts")


def load_servers() -> ModuleType:
    # The tests are no package; this module belongs to them alone.
    spec = importlib.util.spec_from_file_location("cluster_servers", HERE / "servers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


servers = load_servers()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.ApiServer]:  # type: ignore[name-defined]
    """A real etcd, kube-apiserver and kube-controller-manager, one set per test worker."""
    folder = tmp_path_factory.mktemp("kube")
    try:
        with servers.api_server(folder, {CONTROLLER_TOKEN: CONTROLLER_USER}) as server:
            server.start_controller_manager()
            yield server
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[servers.ApiServer]:  # type: ignore[name-defined]
    """A real etcd and kube-apiserver with nothing in them."""
    try:
        with servers.api_server(tmp_path, {CONTROLLER_TOKEN: CONTROLLER_USER}) as server:
            yield server
    except servers.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    port: int = servers.free_port()
    return port


@pytest.fixture
def poll() -> Callable[[str, Callable[[], bool]], None]:
    """Waits for what processes do in their own time."""
    wait: Callable[[str, Callable[[], bool]], None] = servers.poll
    return wait


@pytest.fixture
async def admin(api_server: servers.ApiServer) -> AsyncIterator[KubeClient]:  # type: ignore[name-defined]
    async with connect(str(api_server.kubeconfig())) as client:
        yield client


def install(api_server: servers.ApiServer, definitions: Mapping[Kind, Manifest]) -> None:  # type: ignore[name-defined]
    """Apply CRDs, and return once their kinds are served. It takes seconds: once for each server."""

    async def work() -> None:
        async with connect(str(api_server.kubeconfig())) as client:
            for crd in definitions.values():
                await client.apply(crd, kinds.CUSTOM_RESOURCE_DEFINITION)
            for kind in definitions:
                await until(lambda kind=kind: client.has(kind), seconds=60)  # type: ignore[misc]

    asyncio.run(work())


@pytest.fixture(scope="session")
def crds(api_server: servers.ApiServer) -> None:  # type: ignore[name-defined]
    """Our CRDs, served."""
    dialects = plugins.load().dialects.values()
    by_name = {crd["metadata"]["name"]: crd for dialect in dialects for crd in dialect.crds()}
    install(
        api_server,
        {
            kind: by_name[f"{kind.plural}.{kind.group}"]
            for dialect in dialects
            for kind in dialect.services | dialect.runtimes | dialect.models
        },
    )


@pytest.fixture(scope="session")
def engine_definitions() -> dict[Kind, Manifest]:
    """The engines' own CRDs of all kinds that modes render."""
    folder = SHARED / "crds" / "engines"
    if not folder.is_dir():
        pytest.skip("the engines' CRDs are not here (../shared/crds)")
    wanted = {
        (kind.group, kind.kind): kind
        for mode in plugins.load().modes.values()
        for kind in mode.kinds
        if kind not in kinds.BUILT_IN
    }
    return {
        wanted[crd["spec"]["group"], crd["spec"]["names"]["kind"]]: crd
        for path in sorted(folder.glob("*.yaml"))
        for crd in yaml.safe_load_all(path.read_text())
        if crd and (crd["spec"]["group"], crd["spec"]["names"]["kind"]) in wanted
    }


@pytest.fixture(scope="session")
def engines(api_server: servers.ApiServer, engine_definitions: dict[Kind, Manifest]) -> None:  # type: ignore[name-defined]
    """The engines' CRDs, served."""
    install(api_server, engine_definitions)


@pytest.fixture
async def namespace(admin: KubeClient) -> AsyncIterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}, kinds.NAMESPACE)
    yield name
    await admin.delete(ObjectRef(kinds.NAMESPACE, CLUSTER, name))


@pytest.fixture
def overlay(api_server: servers.ApiServer, crds: None) -> None:  # type: ignore[name-defined]
    """The raw overlay, applied as a user does it."""
    api_server.apply_kustomization(HERE.parents[1] / "deploy" / "kustomize" / "overlays" / "raw")
