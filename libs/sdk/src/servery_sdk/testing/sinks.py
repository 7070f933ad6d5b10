"""What every sink of objects must do, wherever it puts them."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from servery_sdk.errors import Permanent, Transient
from servery_sdk.payloads import ObjectOutlet, Origin, PayloadSink, SinkTarget
from servery_sdk.testing.servers import ServerContract

_SECONDS = 30.0
_KEYS = (
    "demo/iris/predictor/logs/1-request.json",
    "plain.csv",
    "a b/c+d=@x:1-response.parquet",
    "%2F..%2F-request.json",
)


class Store(Protocol):
    """A place of the sink's kind, in the tests' hands."""

    def url(self, prefix: str) -> str:
        """Return the URL of a prefix; of the whole place where it is empty."""

    def missing_url(self) -> str:
        """Return the URL of a place that does not exist and is not made."""

    def objects(self) -> dict[str, bytes]:
        """Return all that is there, by its whole key."""


def target(url: str, *, timeout_seconds: float = _SECONDS) -> SinkTarget:
    """Return what a sink is opened with."""
    return SinkTarget(url=url, origin=Origin(source="test"), timeout_seconds=timeout_seconds)


class ObjectSinkContract:
    """Subclass it as ``Test<Sink>`` with the fixtures ``sink`` and ``store``."""

    @pytest.fixture
    def sink(self) -> PayloadSink:
        """The sink, set up for ``store``."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Store:
        """An empty place."""
        raise NotImplementedError

    def test_sink_answers_for_the_scheme_of_its_urls(self, sink: PayloadSink, store: Store) -> None:
        assert sink.name
        assert store.url("").partition("://")[0] in sink.schemes

    @pytest.mark.parametrize("prefix", ["", "logs", "logs/deep/", "a b"], ids=["none", "one", "deep", "a space"])
    def test_objects_lie_below_the_prefix_as_they_were_given(
        self, sink: PayloadSink, store: Store, prefix: str
    ) -> None:
        contents = {key: key.encode() * 1000 for key in _KEYS} | {"empty.json": b""}
        put(sink, store.url(prefix), contents)
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        assert store.objects() == {below + key: content for key, content in contents.items()}

    def test_object_that_is_put_again_is_replaced(self, sink: PayloadSink, store: Store) -> None:
        put(sink, store.url("p"), {"k.json": b"one"})
        put(sink, store.url("p"), {"k.json": b"another"})
        assert store.objects() == {"p/k.json": b"another"}

    def test_many_at_once_are_all_there(self, sink: PayloadSink, store: Store) -> None:
        contents = {f"{number}-request.json": bytes([number]) for number in range(20)}
        put(sink, store.url("p"), contents)
        assert store.objects() == {f"p/{key}": content for key, content in contents.items()}

    def test_url_without_a_place_is_refused_when_it_is_opened(self, sink: PayloadSink, store: Store) -> None:
        scheme = store.url("").partition("://")[0]
        with pytest.raises(Permanent, match=f"{scheme}://"):
            put(sink, f"{scheme}://", {"k": b""})


class RemoteObjectSinkContract(ServerContract, ObjectSinkContract):
    """For sinks that talk to a server."""

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[PayloadSink, str]:
        """Return a sink whose server would be at the loopback's ``port``, where nobody listens, and a URL."""
        raise NotImplementedError

    def test_server_that_does_not_answer_may_answer_later(
        self, closed_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sink, url = self.unreachable(closed_port, monkeypatch)
        with pytest.raises(Transient) as failed:
            put(sink, url, {"k.json": b""})
        assert url in str(failed.value)

    def test_place_that_does_not_exist_may_be_made_later(self, sink: PayloadSink, store: Store) -> None:
        """Nobody wants a day's log put aside for a bucket that is made a minute late."""
        with pytest.raises(Transient) as failed:
            put(sink, store.missing_url(), {"k.json": b""})
        assert store.missing_url() in str(failed.value)


def put(sink: PayloadSink, url: str, contents: dict[str, bytes]) -> None:
    """Put every object, all at once."""

    async def run() -> None:
        outlet = sink.open(target(url))
        assert isinstance(outlet, ObjectOutlet), f"{sink.name} takes no objects"
        try:
            await asyncio.gather(*(outlet.put(key, content, "text/plain") for key, content in contents.items()))
        finally:
            await outlet.close()

    asyncio.run(run())
