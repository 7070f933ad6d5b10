"""A component that explains a predictor's answers asks for them, and says who is to blame where there are none."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answering import answering
from servery_sdk.documents import Document
from servery_sdk.errors import ServeryError
from servery_sdk.explainers import RemoteExplainer, outputs
from servery_sdk.manifests import Json
from servery_sdk.model import Protocol
from servery_sdk.protocol import v2
from servery_sdk.remote import LateAnswer, NoAnswer, RemotePredictor
from servery_sdk.serving import InputError, LoadError, Unimplemented


def doubled(body: Any) -> tuple[int, Any]:
    return 200, {"predictions": [[2 * value for value in row] for row in body["instances"]]}


class Mirror(RemoteExplainer):
    """Explains an answer by the answer."""

    def explanation(self, instances: list[Json], predictor: RemotePredictor) -> Json:
        return {"of": instances, "answers": predictor.scores(np.array(instances))}


def document(body: Any, **changes: Any) -> Document:
    made = {"model": "iris", "wire": Protocol.V1, "headers": {}, "explain": True, **changes}
    return Document(body=body if isinstance(body, bytes) else json.dumps(body).encode(), **made)


async def test_explanation_is_made_of_the_predictors_answers() -> None:
    headers = {"authorization": "Bearer t", "x-request-id": "7", "accept": "x"}
    with answering(doubled) as predictor:
        explainer = Mirror(predictor_host=predictor.host)
        reply = await explainer.reply(document({"instances": [[1, 2]]}, headers=headers))
    assert json.loads(reply.body) == {"explanations": {"of": [[1, 2]], "answers": [[2.0, 4.0]]}}  # type: ignore[arg-type]
    path, sent, body = predictor.asked[0]
    assert path == "/v1/models/iris:predict"
    assert body == {"instances": [[1, 2]]}
    assert (sent["authorization"], sent["x-request-id"]) == ("Bearer t", "7")
    assert sent.get("accept") != "x"


async def test_prediction_is_passed_on_as_it_is() -> None:
    with answering(lambda body: (418, {"error": body})) as predictor:
        reply = await Mirror(predictor_host=predictor.host).reply(document({"any": "thing"}, explain=False))
    assert (reply.status, json.loads(reply.body)) == (418, {"error": {"any": "thing"}})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the body is not JSON"),
        ([1], "the body must be a JSON object"),
        ({"inputs": [1]}, 'a list "instances" that is not empty'),
        ({"instances": []}, 'a list "instances" that is not empty'),
    ],
    ids=["no-json", "no-object", "no-instances", "empty"],
)
async def test_wrong_request_is_the_clients_fault(body: Any, words: str) -> None:
    with pytest.raises(ServeryError, match=words) as refused:
        await Mirror(predictor_host="127.0.0.1:9").reply(document(body))
    assert refused.value.code == "INVALID_ARGUMENT"


async def test_grpc_is_refused() -> None:
    with pytest.raises(Unimplemented, match="speaks v1 and v2, not grpc-v2"):
        await Mirror(predictor_host="there").reply(document(b"", wire=Protocol.GRPC_V2))


def v2_body(*inputs: tuple[str, Any], **more: Any) -> Any:
    made = [(name, np.asarray(data)) for name, data in inputs]
    return {
        "inputs": [
            {"name": name, "shape": list(data.shape), "datatype": "FP64", "data": data.ravel().tolist()}
            for name, data in made
        ],
        **more,
    }


async def test_v2_asks_for_an_explanation_and_gets_its_members_as_outputs() -> None:
    with answering(doubled) as predictor:
        explainer = Mirror(predictor_host=predictor.host)
        asked = document(v2_body(("x", [[1.0, 2.0], [3.0, 4.0]]), id="7"), wire=Protocol.V2)
        reply = await explainer.reply(asked)
    answer = json.loads(reply.body)  # type: ignore[arg-type]
    assert (answer["model_name"], answer["id"]) == ("iris", "7")
    assert [(one["name"], one["datatype"], one["shape"], one["data"]) for one in answer["outputs"]] == [
        ("of", "FP64", [2, 2], [1.0, 2.0, 3.0, 4.0]),
        ("answers", "FP64", [2, 2], [2.0, 4.0, 6.0, 8.0]),
    ]
    assert predictor.asked[0][0] == "/v1/models/iris:predict"


async def test_v2_sends_and_gets_bytes_where_they_are_asked_for() -> None:
    request = v2.decode_request(json.dumps(v2_body(("x", [[1.0, 2.0]]))).encode(), model="iris")
    sent = v2.encode_request(request, binary=True)
    with answering(doubled) as predictor:
        reply = await Mirror(predictor_host=predictor.host).reply(
            document(sent.body, wire=Protocol.V2, headers={"inference-header-content-length": str(sent.json_length)})
        )
    assert isinstance(reply.body, bytes)
    found = v2.decode_response(reply.body, json_length=int(reply.headers["inference-header-content-length"]))
    assert {output.name: output.data.tolist() for output in found.outputs} == {
        "of": [[1.0, 2.0]],
        "answers": [[2.0, 4.0]],
    }
    with pytest.raises(InputError, match="must be a number, found 'x'"):
        await Mirror(predictor_host="there").reply(
            document(b"", wire=Protocol.V2, headers={"inference-header-content-length": "x"})
        )


def test_what_is_no_number_is_json_in_v2() -> None:
    found = {
        output.name: (str(output.datatype), output.data.tolist()) for output in outputs({"a": [[1], [2, 3]], "b": 4})
    }
    assert found == {"a": ("BYTES", [b"[[1],[2,3]]"]), "b": ("INT64", [4])}
    assert [output.name for output in outputs([1.0])] == ["explanation"]


async def test_predictor_that_speaks_v2_is_asked_in_its_own_words() -> None:
    def answer(body: Any) -> tuple[int, Any]:
        if body is None:
            return 200, {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 2]}]}
        (given,) = body["inputs"]
        data = [2 * value for value in given["data"]]
        return 200, {"outputs": [{"name": "y", "datatype": "FP32", "shape": given["shape"], "data": data}]}

    with answering(answer) as predictor:
        explainer = Mirror(predictor_host=predictor.host, predictor_protocol="v2")
        reply = await explainer.reply(document({"instances": [[1, 2], [3, 4]]}))
    assert json.loads(reply.body)["explanations"]["answers"] == [[2.0, 4.0], [6.0, 8.0]]  # type: ignore[arg-type]
    path, _, body = predictor.asked[0]
    assert (path, body["inputs"][0]["name"], body["inputs"][0]["datatype"]) == (
        "/v2/models/iris/infer",
        "pixels",
        "FP32",
    )


async def test_v2_prediction_is_passed_on_as_it_is() -> None:
    body = v2_body(("x", [[1.0]]))
    with answering(lambda body: (200, body)) as predictor:
        reply = await Mirror(predictor_host=predictor.host).reply(document(body, wire=Protocol.V2, explain=False))
    assert (reply.status, json.loads(reply.body)) == (200, body)  # type: ignore[arg-type]
    assert predictor.asked[0][0] == "/v2/models/iris/infer"


@pytest.mark.parametrize("answer", [{}, {"outputs": []}, {"outputs": [{"name": "y"}]}])
def test_v2_answer_that_is_none_is_the_predictors_fault(answer: Any) -> None:
    with (
        answering(lambda body: (200, answer if body else {})) as predictor,
        RemotePredictor(predictor.host, "iris", protocol=Protocol.V2) as asked,
        pytest.raises(NoAnswer, match='no "outputs" with rows'),
    ):
        asked.predictions([[1.0]])


def test_explainer_without_a_predictor_does_not_load() -> None:
    with pytest.raises(LoadError, match="--predictor_host is missing"):
        Mirror().load(Path("/nowhere"))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((400, {"error": "wrong shape"}), InputError, "HTTP 400.*wrong shape"),
        ((503, {"error": "loading"}), NoAnswer, "HTTP 503.*loading"),
        ((200, {"outputs": []}), NoAnswer, 'no list "predictions"'),
        ((200, {"predictions": ["a"]}), InputError, "no numbers, such as 'a'"),
        ((200, {"predictions": [1, 2]}), NoAnswer, "2 predictions for 1 rows"),
        (None, NoAnswer, "RemoteDisconnected"),
    ],
    ids=["refuses", "fails", "other-words", "texts", "too-many", "hangs-up"],
)
def test_answer_that_is_none_says_what_the_predictor_did(answer: Any, kind: type[Exception], words: str) -> None:
    with (
        answering(lambda _: answer) as predictor,
        RemotePredictor(predictor.host, "iris") as asked,
        pytest.raises(kind, match=words),
    ):
        asked.scores(np.zeros((1, 2)))


def test_connection_that_ended_between_two_requests_is_opened_again() -> None:
    answers: list[Any] = [(200, {"predictions": [1]}), None, (200, {"predictions": [2]})]
    with answering(lambda _: answers.pop(0)) as predictor, RemotePredictor(predictor.host, "iris") as asked:
        assert asked.predictions([[0]]) == [1]
        assert asked.predictions([[0]]) == [2]


def test_predictor_that_is_not_there_or_late_is_no_fault_of_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with RemotePredictor(host, "iris", timeout_seconds=0.05) as asked, pytest.raises(LateAnswer, match=r"0\.05 s"):
            asked.predictions([[0]])
    with RemotePredictor(host, "iris") as asked, pytest.raises(NoAnswer, match="refused"):
        asked.predictions([[0]])


def test_closed_predictor_is_asked_no_more() -> None:
    asked = RemotePredictor("127.0.0.1:9", "iris")
    asked.close()
    with pytest.raises(NoAnswer, match="nobody waits"):
        asked.predictions([[0]])
