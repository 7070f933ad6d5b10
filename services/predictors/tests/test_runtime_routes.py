"""Paths and ports that a runtime adds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.runtime_routes import doors
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import InferRequest, InferResponse, RequestError, v1
from servery_sdk.routes import Answer, Asked, CrossOrigin, Host, Listener, Route
from servery_sdk.serving import Model

PAGE = "https://page.example"


class Shouting:
    """A model whose users know ``/shout``; its store holds another one back."""

    beside: Listener

    def load(self, artifact: Path) -> None: ...

    def predict(self, request: InferRequest) -> InferResponse:
        return InferResponse(model=request.model, outputs=request.inputs)

    @classmethod
    def stored(cls, artifact: Path) -> Mapping[str, Callable[[], Model]]:
        return {"loud": cls}

    @classmethod
    def reserved(cls, artifact: Path) -> Mapping[str, Callable[[], Model]]:
        return {"louder": cls}

    @classmethod
    def listeners(cls, artifact: Path, host: Host) -> Sequence[Listener]:
        async def shout(asked: Asked) -> Answer:
            model = host.model(asked.path["model"]).name
            answer = await host.infer(v1.decode_request(asked.body, model=model), protocol="shouts")
            told = f"{asked.path} {asked.query} {asked.headers.get('x-mine')} {v1.encode_response(answer).decode()}"
            return Answer(status=202, body=told.encode(), content_type="text/plain", headers={"x-loud": "yes"})

        async def load(asked: Asked) -> Answer:
            await host.load(asked.path["model"])
            known = [(model.name, str(model.state), model.loaded is not None) for model in host.models()]
            return Answer(body=str((host.is_alone, host.is_ready, known)).encode())

        async def fail(_: Asked) -> Answer:
            raise RequestError("not so loud")

        routes = (
            Route(
                method="POST",
                path="/shout/{model}",
                handle=shout,
                summary="Say it loudly",
                takes=("text/plain",),
                query={"again": "how often"},
                failures={"404": "no such model"},
            ),
            Route(method="PUT", path="/shout/{model}/load", handle=load),
            Route(method="GET", path="/shout.", handle=fail),
        )
        return (Listener(routes=routes), replace(cls.beside, routes=routes))


@pytest.fixture
async def make_predictor(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[Predictor] = []

    async def make(**beside: Any) -> Predictor:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        Shouting.beside = Listener(**{"port": port, **beside})
        runtime = replace(plugins.load().runtimes["servery-python"], model_class=f"{__name__}:Shouting")
        settings = Settings(runtime="python", model_dir=tmp_path, host="127.0.0.1", http_port=0, grpc_port=0)
        predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
        made.append(predictor)
        await predictor.start()
        return predictor

    yield make
    for predictor in made:
        await predictor.stop()


async def test_routes_are_answered_at_our_port_and_at_theirs(make_predictor: Any) -> None:
    predictor = await make_predictor(tells_metrics=True)
    (door,) = predictor.doors
    for url in (predictor.http.url, door.url):
        async with httpx.AsyncClient(base_url=url, headers={"x-mine": "1"}) as http:
            answer = await http.post("/shout/loud%20?a=b&a=&c=%20", json={"instances": [1]})
            assert answer.json() == {"error": "Model with name loud  does not exist; this server has: loud"}
            answer = await http.post("/shout/loud?a=b&c=%20", json={"instances": [1]})
            assert (answer.status_code, answer.headers["x-loud"]) == (202, "yes")
            assert answer.text == """{'model': 'loud'} {'a': 'b', 'c': ' '} 1 {"predictions":[1]}"""
            assert (await http.get("/shout.")).json() == {"error": "not so loud"}
            assert (await http.post("/v1/models/loud:predict", json={"instances": [1]})).json() == {"predictions": [1]}
            for method, path in (("GET", "/shoutx"), ("GET", "/shout/loud"), ("POST", "/shout/a/b")):
                assert (await http.request(method, path)).status_code == 404
            assert 'protocol="shouts"' in (await http.get("/metrics")).text


async def test_a_model_that_a_store_holds_back_is_loaded_when_asked_for(make_predictor: Any) -> None:
    predictor = await make_predictor()
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        assert (await http.get("/v1/models")).json() == {"models": ["loud"]}
        loaded = [("loud", "Loaded", True), ("louder", "Loaded", True)]
        assert (await http.put("/shout/louder/load")).text == str((True, True, loaded))
        assert (await http.post("/v1/models/louder:predict", json={"instances": [1]})).json() == {"predictions": [1]}
        assert (await http.put("/shout/loudest/load")).status_code == 404


async def test_pages_that_their_configuration_lets_in_are_let_in_at_their_port(make_predictor: Any) -> None:
    pages = CrossOrigin(origins=(PAGE,), methods=("POST",), headers=("x-mine",))
    predictor = await make_predictor(cross_origin=pages)
    asked = {"origin": PAGE, "access-control-request-method": "POST", "access-control-request-headers": "x-mine"}
    for url, told in ((predictor.doors[0].url, PAGE), (predictor.http.url, None)):
        async with httpx.AsyncClient(base_url=url) as http:
            preflight = await http.options("/shout/loud", headers=asked)
            answer = await http.post("/shout/loud", json={"instances": [1]}, headers={"origin": PAGE})
            assert answer.status_code == 202
            assert [one.headers.get("access-control-allow-origin") for one in (preflight, answer)] == [told, told]


async def test_a_port_that_somebody_has_is_left_to_them(make_predictor: Any, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        predictor = await make_predictor(port=theirs.getsockname()[1])
    assert predictor.doors == ()
    assert "port of the runtime's own is not opened" in caplog.messages
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        assert (await http.post("/shout/loud", json={"instances": [1]})).status_code == 202


async def silent(_: Asked) -> Answer:
    return Answer(body=b"")


ONE, TWO = (Route(method="GET", path=path, handle=silent) for path in ("/one", "/two"))


@pytest.mark.parametrize(
    ("listeners", "host", "own", "beside"),
    [
        ([Listener(routes=(ONE,))], "0.0.0.0", (ONE,), []),
        ([Listener(routes=(ONE,), port=8080), Listener(routes=(TWO,), port=8081)], "0.0.0.0", (ONE, TWO), []),
        (
            [Listener(routes=(ONE,), port=8085), Listener(routes=(TWO,), port=8085)],
            "0.0.0.0",
            (),
            [("0.0.0.0", 8085, (ONE, TWO))],
        ),
        ([Listener(routes=(ONE,), port=8085, is_local=True)], "0.0.0.0", (), [("127.0.0.1", 8085, (ONE,))]),
        ([Listener(routes=(ONE,), port=8085, is_local=True)], "127.64.0.3", (), [("127.64.0.3", 8085, (ONE,))]),
        ([Listener(routes=(ONE,), port=8081, is_local=True)], "0.0.0.0", (), []),
        ([Listener(routes=(ONE,), port=8081, is_local=True)], "127.64.0.3", (ONE,), []),
    ],
    ids=["no port", "ports of ours", "one port", "local", "in a pod here", "local, but taken", "taken in a pod here"],
)
def test_what_is_answered_where(listeners: list[Listener], host: str, own: Any, beside: list[Any]) -> None:
    found, made = doors(listeners, host=host, http_port=8080, taken=(8081,))
    assert (found, [(door.host, door.port, door.routes) for door in made]) == (own, beside)


async def test_the_predictors_description_tells_of_them(make_predictor: Any) -> None:
    predictor = await make_predictor()
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
    told = paths["/shout/{model}"]["post"]
    assert told["summary"] == "Say it loudly"
    assert [(one["name"], one["in"]) for one in told["parameters"]] == [("model", "path"), ("again", "query")]
    assert list(told["requestBody"]["content"]) == ["text/plain"]
    assert set(told["responses"]) == {"200", "404"}
    assert "requestBody" not in paths["/shout/{model}/load"]["put"]
