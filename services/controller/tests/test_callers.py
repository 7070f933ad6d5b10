"""Who may hear what a pod holds: the pod, by a token that the API server knows as its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from servery_agent.puller.assignments import Assignment
from servery_agent.puller.control import Control, Pod
from servery_controller.assignments import Assignments
from servery_controller.callers import KNOWN_SECONDS, UNKNOWN_SECONDS, Caller, Stranger, TokenReviews
from servery_controller.telling import serving
from servery_kube.memory import MemoryApi
from servery_kube.port import KubeError
from servery_sdk.kinds import TOKEN_REVIEW
from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.protos.servery.control.v1 import control_pb2 as pb
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as stubs

PATIENCE_SECONDS = 20
AUDIENCE = "servery-controller"
POD = Caller(namespace="demo", pod="p")
SERVICE = ObjectRef(Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"), Namespace("demo"), "f")


class Reviewing(MemoryApi):
    """An API server that knows some tokens."""

    def __init__(self, tokens: dict[str, dict[str, Json]]) -> None:
        super().__init__()
        self.tokens = tokens
        self.asked: list[str] = []
        self.is_there = True

    async def create(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Review; nothing is stored."""
        assert kind == TOKEN_REVIEW
        if not self.is_there:
            raise KubeError("nobody answers")
        spec = manifest["spec"]
        assert spec["audiences"] == [AUDIENCE]
        self.asked.append(spec["token"])
        return {**manifest, "status": self.tokens.get(spec["token"], {"authenticated": False})}


def a_status(
    user: str = "system:serviceaccount:demo:default", pod: str | None = "p", audience: str | None = AUDIENCE
) -> dict[str, Json]:
    extra: dict[str, Json] = {"authentication.kubernetes.io/pod-name": [pod]} if pod else {}
    return {
        "authenticated": True,
        "user": {"username": user, "extra": extra},
        **({"audiences": [audience]} if audience else {}),
    }


@pytest.fixture
def api() -> Reviewing:
    return Reviewing({"good": a_status()})


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def reviews(api: Reviewing, now: list[float]) -> TokenReviews:
    return TokenReviews(api, AUDIENCE, clock=lambda: now[0])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param({"authenticated": False, "audiences": [AUDIENCE]}, "none of a pod", id="wrong or expired"),
        pytest.param(a_status(audience="https://kubernetes"), "none of a pod", id="for somebody else"),
        pytest.param(a_status(audience=None), "none of a pod", id="for no one in particular"),
        pytest.param(a_status(user="admin"), "none of a pod", id="a person's"),
        pytest.param(a_status(pod=None), "none of a pod", id="an account's, without a pod"),
        pytest.param(a_status(user="system:serviceaccount:other:x"), "of pod other/p", id="of another namespace"),
        pytest.param(a_status(pod="q"), "of pod demo/q", id="of another pod"),
    ],
)
async def test_others_are_strangers(status: dict[str, Json], words: str, api: Reviewing, reviews: TokenReviews) -> None:
    api.tokens["t"] = status
    with pytest.raises(Stranger, match=words):
        await reviews.check("t", POD)


async def test_no_token_is_told_what_to_send_and_asks_nobody(api: Reviewing, reviews: TokenReviews) -> None:
    with pytest.raises(Stranger, match="--controller-token-file"):
        await reviews.check("", POD)
    assert api.asked == []


async def test_token_is_looked_at_once_in_its_time(api: Reviewing, reviews: TokenReviews, now: list[float]) -> None:
    for _ in range(3):
        await reviews.check("good", POD)
        with pytest.raises(Stranger):
            await reviews.check("bad", POD)
    assert api.asked == ["good", "bad"]
    now[0] = UNKNOWN_SECONDS
    with pytest.raises(Stranger):
        await reviews.check("bad", POD)
    await reviews.check("good", POD)
    assert api.asked == ["good", "bad", "bad"]
    now[0] = KNOWN_SECONDS
    api.tokens.clear()
    with pytest.raises(Stranger):
        await reviews.check("good", POD)


async def test_silence_of_the_api_server_is_not_remembered(api: Reviewing, reviews: TokenReviews) -> None:
    api.is_there = False
    with pytest.raises(KubeError):
        await reviews.check("good", POD)
    api.is_there = True
    await reviews.check("good", POD)


@pytest.fixture
async def port(reviews: TokenReviews) -> AsyncIterator[int]:
    assignments = Assignments()
    assignments.assign(SERVICE, ())
    async with asyncio.timeout(PATIENCE_SECONDS), serving(assignments, "127.0.0.1:0", reviews) as port:
        yield port


@pytest.mark.parametrize(
    ("metadata", "is_there", "code"),
    [
        pytest.param((), True, grpc.StatusCode.UNAUTHENTICATED, id="no token"),
        pytest.param((("authorization", "Bearer bad"),), True, grpc.StatusCode.UNAUTHENTICATED, id="a wrong one"),
        pytest.param((("authorization", "Bearer good"),), False, grpc.StatusCode.UNAVAILABLE, id="no API server"),
    ],
)
async def test_stranger_hears_nothing(
    metadata: Any, is_there: bool, code: grpc.StatusCode, port: int, api: Reviewing
) -> None:
    api.is_there = is_there
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = stubs.AssignmentsStub(channel).Watch(metadata=metadata)  # type: ignore[no-untyped-call]  # generated
        await call.write(pb.PodReport(namespace="demo", pod="p", service="f"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is code


async def test_agent_sends_the_token_that_its_file_holds_now(port: int, api: Reviewing, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    heard: asyncio.Queue[tuple[Assignment, ...]] = asyncio.Queue()

    def renew() -> None:
        file.write_text("good\n")

    control = Control(
        f"127.0.0.1:{port}",
        Pod(namespace="demo", name="p", service="f"),
        token_file=file,
        on_assigned=heard.put_nowait,
        on_gone=renew,
    )
    running = asyncio.create_task(control.run())
    try:
        assert await heard.get() == ()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert api.asked == ["old", "good"]
