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
from servery_sdk.explainers import RemoteExplainer
from servery_sdk.manifests import Json
from servery_sdk.model import Protocol
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


async def test_other_protocols_are_refused() -> None:
    with pytest.raises(Unimplemented, match="speaks v1, not v2"):
        await Mirror(predictor_host="there").reply(document(b"", wire=Protocol.V2))


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
