"""vLLM's engine behind every protocol, against transformers' own ``generate``."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import openai
import pytest
import torch
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ("The cat sat", "Rivers run to the", "Hello! How", "What is", "on the mat and the weather is like the sea")
COUNT = 12
GREEDY = {"max_tokens": COUNT, "temperature": 0}

pytestmark = pytest.mark.timeout(600)


@cache
def transformers_of(directory: Path) -> tuple[Any, Any]:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(
        directory
    )


@pytest.fixture(scope="module")
def expected(tiny: Path) -> list[str]:
    """What transformers writes after each prompt."""
    model, tokenizer = transformers_of(tiny)
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            row = model.generate(ids, max_new_tokens=COUNT, do_sample=False, pad_token_id=0)[0]
        text = tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)
        # vLLM keeps back a character that the last tokens begin and do not end.
        found.append(text.rstrip("\N{REPLACEMENT CHARACTER}"))
    return found


class TestProtocols:
    def test_v1_continues_texts_as_transformers_does(self, server: Any, expected: list[str]) -> None:
        body = {"instances": list(PROMPTS), "parameters": {"max_tokens": COUNT}}
        assert server.post("/v1/models/tiny:predict", body) == {"predictions": expected}

    def test_v2_json(self, server: Any, expected: list[str]) -> None:
        given = {"name": "text", "shape": [len(PROMPTS)], "datatype": "BYTES", "data": list(PROMPTS)}
        body = {"id": "1", "inputs": [given], "parameters": {"max_tokens": COUNT}}
        answer = server.post("/v2/models/tiny/infer", body)
        assert answer["id"] == "1"
        assert [(each["name"], each["data"]) for each in answer["outputs"]] == [("output-0", expected)]

    def test_v2_binary(self, server: Any, expected: list[str]) -> None:
        data = b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in PROMPTS)
        size = {"binary_data_size": len(data)}
        given = {"name": "text", "shape": [len(PROMPTS)], "datatype": "BYTES", "parameters": size}
        told = {"max_tokens": COUNT, "binary_data_output": True}
        head = json.dumps({"inputs": [given], "parameters": told}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}
        answer = server.client.post("/v2/models/tiny/infer", content=head + data, headers=headers)
        assert answer.status_code == 200, answer.text
        length = int(answer.headers["Inference-Header-Content-Length"])
        assert texts_of(answer.content[length:]) == expected

    def test_grpc(self, server: Any, expected: list[str]) -> None:
        request = pb.ModelInferRequest(model_name="tiny")
        request.parameters["max_tokens"].int64_param = COUNT
        given = request.inputs.add(name="text", datatype="BYTES", shape=[len(PROMPTS)])
        given.contents.bytes_contents.extend(prompt.encode() for prompt in PROMPTS)
        with grpc.insecure_channel(server.grpc) as channel:
            stub = GRPCInferenceServiceStub(channel)
            answer = stub.ModelInfer(request, timeout=60)
            assert stub.ServerLive(pb.ServerLiveRequest(), timeout=60).live
            assert stub.ModelReady(pb.ModelReadyRequest(name="tiny"), timeout=60).ready
        contents = answer.outputs[0].contents.bytes_contents
        found = [text.decode() for text in contents] or texts_of(answer.raw_output_contents[0])
        assert found == expected

    def test_generate_extension(self, server: Any, expected: list[str]) -> None:
        body = {"text_input": PROMPTS[0], **GREEDY}
        assert server.post("/v2/models/tiny/generate", body)["text_output"] == expected[0]
        with server.client.stream("POST", "/v2/models/tiny/generate_stream", json=body) as answer:
            events = [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]
        assert len(events) > 1
        assert "".join(event["text_output"] for event in events) == expected[0]

    def test_requests_at_one_time_get_what_each_gets_alone(self, server: Any, expected: list[str]) -> None:
        asked = list(zip(PROMPTS, expected, strict=True)) * 8

        def ask(pair: tuple[str, str]) -> bool:
            body = {"instances": [pair[0]], "parameters": {"max_tokens": COUNT}}
            return bool(server.post("/v1/models/tiny:predict", body) == {"predictions": [pair[1]]})

        with ThreadPoolExecutor(20) as pool:
            assert all(pool.map(ask, asked))

    def test_metadata_says_texts(self, server: Any) -> None:
        found = server.get("/v2/models/tiny")
        assert found["platform"].startswith("vllm-")
        assert [(each["name"], each["datatype"]) for each in found["inputs"]] == [("text", "BYTES")]

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"instances": [[1.5, 2.5]]}, "the model takes texts"),
            ({"instances": ["a"], "parameters": {"temperature": -1}}, "parameter 'temperature'"),
            ({"instances": ["a"], "parameters": {"max_tokens": 0}}, "parameter 'max_tokens'"),
            ({"instances": ["the cat " * 9000]}, "8192"),
        ],
        ids=["no-text", "temperature", "max-tokens", "too-long"],
    )
    def test_what_does_not_fit_is_refused(self, server: Any, body: Any, words: str) -> None:
        # Often: what is refused at once must not bring the model onto the event loop.
        for _ in range(8):
            assert words in server.post("/v1/models/tiny:predict", body, status=400)["error"]
        assert server.post("/v1/models/tiny:predict", {"instances": ["a"]})["predictions"]


def texts_of(data: bytes) -> list[str]:
    """Return BYTES as they are on the wire."""
    found = []
    while data:
        size = int(np.frombuffer(data[:4], dtype="<u4")[0])
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


@pytest.fixture(params=["/openai/v1", "/v1"])
def client(request: pytest.FixtureRequest, server: Any) -> Any:
    with openai.OpenAI(base_url=server.url + request.param, api_key="none", max_retries=0) as made:
        yield made


class TestOpenAI:
    def test_completion(self, client: openai.OpenAI, expected: list[str]) -> None:
        answer = client.completions.create(model="tiny", prompt=list(PROMPTS), **GREEDY)
        assert [choice.text for choice in answer.choices] == expected

    def test_chat_streams(self, client: openai.OpenAI) -> None:
        messages: Any = [{"role": "user", "content": "Hello!"}]
        whole = client.chat.completions.create(model="tiny", messages=messages, **GREEDY)
        stream = client.chat.completions.create(model="tiny", messages=messages, stream=True, **GREEDY)
        parts = [chunk.choices[0].delta.content or "" for chunk in stream]
        assert "".join(parts) == whole.choices[0].message.content
        assert len(parts) > 2

    def test_names_and_adapters_are_listed(self, client: openai.OpenAI) -> None:
        assert {model.id: model.root.rpartition("/")[2] for model in client.models.list()} == {  # type: ignore[attr-defined]
            "tiny": "tiny",
            "other": "tiny",
            "loud": "loud",
        }
        if "/openai" in str(client.base_url):
            assert client.models.retrieve("loud").parent == "tiny"  # type: ignore[attr-defined]

    def test_another_name_is_the_same_model(self, client: openai.OpenAI, expected: list[str]) -> None:
        assert client.completions.create(model="other", prompt=PROMPTS[0], **GREEDY).choices[0].text == expected[0]

    def test_an_adapter_answers_otherwise(self, client: openai.OpenAI, expected: list[str]) -> None:
        found = client.completions.create(model="loud", prompt=PROMPTS[0], **GREEDY).choices[0].text
        assert found != expected[0]

    def test_an_unknown_model_is_not_found(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.completions.create(model="nobody", prompt="x")

    def test_a_wrong_field_is_refused(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError):
            client.completions.create(model="tiny", prompt="x", temperature=-1)

    def test_logprobs(self, client: openai.OpenAI) -> None:
        told = client.completions.create(model="tiny", prompt="x", logprobs=2, **GREEDY).choices[0].logprobs
        assert told is not None
        assert len(told.token_logprobs or ()) == COUNT

    def test_a_named_tool_is_called(self, client: openai.OpenAI) -> None:
        city = {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]}
        tool: Any = {"type": "function", "function": {"name": "weather", "parameters": city, "strict": True}}
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "Is it warm?"}],
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_tokens=100,
        )
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Rome"})

    def test_an_answer_keeps_to_a_schema(self, client: openai.OpenAI) -> None:
        schema: Any = {"type": "object", "properties": {"sea": {"const": 7}}, "required": ["sea"]}
        form: Any = {"type": "json_schema", "json_schema": {"name": "sea", "schema": schema}}
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], response_format=form, max_tokens=100
        )
        assert json.loads(answer.choices[0].message.content or "") == {"sea": 7}


def test_the_flags_template_writes_conversations(server: Any, tiny: Path) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello!"}], "add_generation_prompt": True}
    _, tokenizer = transformers_of(tiny)
    assert tokenizer.decode(server.post("/tokenize", body)["tokens"]) == "[user] Hello!\n[assistant] "


def test_what_only_vllm_knows_is_answered_by_it(server: Any) -> None:
    assert server.get("/version")["version"]
    assert server.client.get("/health").status_code == 200
    assert server.client.post("/v1/responses", json={"model": "tiny", "input": "x", "max_output_tokens": 4}).is_success
    assert server.get("/nothing", status=404)


def test_metrics_are_vllms_and_ours(server: Any) -> None:
    counted = 'servery_predictor_requests_total{code="OK",model="tiny",protocol="openai"}'
    before = server.number("vllm:generation_tokens_total")
    server.post("/v1/completions", {"model": "tiny", "prompt": "x", "ignore_eos": True, **GREEDY})
    server.until(lambda: server.number("vllm:generation_tokens_total") >= before + COUNT, "tokens are not counted")
    assert counted in server.client.get("/metrics").text


def test_a_client_that_hangs_up_stops_its_text(server: Any) -> None:
    before, given_up = server.number("vllm:generation_tokens_total"), cancelled(server)
    body = {"model": "tiny", "prompt": "x", "max_tokens": 8000, "ignore_eos": True, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=body) as answer:
        next(answer.iter_lines())
        assert server.number("vllm:num_requests_running") == 1
    server.until(lambda: server.number("vllm:num_requests_running") == 0, "the text is written on")
    assert server.number("vllm:generation_tokens_total") - before < 7000
    assert cancelled(server) == given_up + 1


def cancelled(server: Any) -> float:
    """Return how many of OpenAI's requests were given up so far, by this test or another."""
    series = 'servery_predictor_requests_total{code="CANCELLED",model="tiny",protocol="openai"} '
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(series)) for line in lines if line.startswith(series))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/tiny/generate", {"text_input": "x"}),
        ("/v1/models/tiny:predict", {"instances": ["x"]}),
        ("/v2/models/tiny/infer", {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["x"]}]}),
        ("/v1/completions", {"model": "tiny", "prompt": "x"}),
        ("/openai/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}),
    ],
    ids=["generate", "v1", "v2", "completion", "chat"],
)
def test_a_client_that_gives_up_waiting_stops_its_text(server: Any, path: str, body: Any) -> None:
    told = {"max_tokens": 8000, "ignore_eos": True}
    long = {
        **body,
        **(told if "instances" not in body and "inputs" not in body else {"parameters": {"max_tokens": 8000}}),
    }
    with pytest.raises(httpx.ReadTimeout):
        server.client.post(path, json=long, timeout=1)
    assert_stops(server)


def test_a_call_of_grpc_that_is_given_up_stops_its_texts(server: Any) -> None:
    request = pb.ModelInferRequest(model_name="tiny")
    request.parameters["max_tokens"].int64_param = 8000
    given = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    given.contents.bytes_contents.extend([b"x", b"y"])
    with grpc.insecure_channel(server.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="Deadline"):
            stub.ModelInfer(request, timeout=1)
    assert_stops(server)


def assert_stops(server: Any) -> None:
    before = server.number("vllm:generation_tokens_total")
    server.until(lambda: server.number("vllm:num_requests_running") == 0, "the text is written on")
    assert server.number("vllm:generation_tokens_total") - before < 6000
