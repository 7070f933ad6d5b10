"""The four substitutions, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from servery.local.configuration import Configuration
from servery.local.localize import ErrImageNotLocal, Sandbox, localize, repository
from servery_sdk.model import Runtime

GIVEN = Configuration(
    namespace="n", secrets={"s": {"data": {"path": "L21udC9tb2RlbHM="}}}, config_maps={"c": {"data": {"name": "iris"}}}
)
DOORS = {("iris-predictor.demo", 80): "127.0.0.1:4001", ("iris-predictor.demo", 8081): "127.0.0.1:4002"}
SANDBOX = Sandbox(address="127.64.0.7", directory=Path("/sandbox"), claims=Path("/claims"))
RUNTIME = Runtime(
    name="servery-sklearn",
    aliases=("kserve-sklearnserver",),
    model_class="x:Y",
    image="servery/predictor-sklearn:1",
    local_images=("kserve/sklearnserver",),
)


def localized(container: dict[str, Any], **spec: Any) -> Any:
    container = {"name": "main", "image": "kserve/sklearnserver:v1", **container}
    return localize({"metadata": {"name": "p"}, "spec": {**spec}}, container, SANDBOX, [RUNTIME], GIVEN, DOORS)


@pytest.mark.parametrize(
    "image",
    [
        "kserve/sklearnserver",
        "kserve/sklearnserver:v0.15.0",
        "docker.io/kserve/sklearnserver@sha256:0123",
        "index.docker.io/kserve/sklearnserver:latest",
        "kserve-sklearnserver:replace",
        "servery/predictor-sklearn:2",
    ],
)
def test_known_image_becomes_the_predictor(image: str) -> None:
    expected = (sys.executable, "-m", "servery_predictor.cli", "--runtime=servery-sklearn", "--model_name=m")
    assert localized({"image": image, "args": ["--model_name=m"]}).arguments == expected


def test_registry_with_a_port_keeps_its_name() -> None:
    assert repository("registry:5000/team/server:v1") == "registry:5000/team/server"


def test_unknown_image_says_which_are_known() -> None:
    with pytest.raises(ErrImageNotLocal, match=r"'acme/x'.*kserve/sklearnserver"):
        localized({"image": "acme/x"})


def test_mount_paths_become_directories_once_and_whole() -> None:
    process = localized(
        {
            "args": ["--a=/mnt/models", "--b=/mnt/models/x", "--c=/mnt/models2", "file:///tmp/x", "--d=/tmp"],
            "env": [{"name": "MODEL_DIR", "value": "/mnt/models"}],
            "volumeMounts": [{"name": "m", "mountPath": "/mnt/models"}, {"name": "t", "mountPath": "/tmp"}],
        },
        volumes=[{"name": "m", "hostPath": {"path": "/tmp/on-host"}}, {"name": "t", "emptyDir": {}}],
    )
    temporary = "/sandbox/volumes/t"
    assert process.arguments[4:] == (
        "--a=/tmp/on-host",
        "--b=/tmp/on-host/x",
        "--c=/mnt/models2",
        "file:///tmp/x",
        f"--d={temporary}",
    )
    assert process.environment["MODEL_DIR"] == "/tmp/on-host"
    assert process.environment["TMPDIR"] == temporary


def test_claim_with_a_sub_path_becomes_its_folder() -> None:
    process = localized(
        {
            "args": ["/mnt/models"],
            "volumeMounts": [{"name": "m", "mountPath": "/mnt/models", "subPath": "iris"}],
        },
        volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}],
    )
    assert process.arguments[-1] == "/claims/models/iris"


def test_bind_host_becomes_the_address_of_the_pod() -> None:
    process = localized(
        {"args": ["--host=0.0.0.0"], "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}
    )
    assert process.arguments[-1] == "--host=127.64.0.7"
    assert process.environment["IP"] == process.environment["SERVERY_PREDICTOR_HOST"] == "127.64.0.7"


def test_references_are_expanded_before_paths_are_placed() -> None:
    process = localized(
        {
            "args": ["--dir=$(DIR)/$(NAME)", "--kept=$(NONE)"],
            "env": [
                {"name": "DIR", "valueFrom": {"secretKeyRef": {"name": "s", "key": "path"}}},
                {"name": "NAME", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "name"}}},
            ],
            "volumeMounts": [{"name": "m", "mountPath": "/mnt/models"}],
        },
        volumes=[{"name": "m", "emptyDir": {}}],
    )
    assert process.arguments[-2:] == ("--dir=/sandbox/volumes/m/iris", "--kept=$(NONE)")
    assert process.environment["DIR"] == "/sandbox/volumes/m"


def test_program_of_this_machine_is_no_path_of_the_container() -> None:
    mount = str(Path(sys.executable).parents[1])
    process = localized({"volumeMounts": [{"name": "t", "mountPath": mount}]}, volumes=[{"name": "t", "emptyDir": {}}])
    assert process.arguments[0] == sys.executable


FOREIGN = Runtime(
    name="servery-acme",
    model_class="x:Y",
    image="servery/predictor-acme:1",
    local_images=("servery/predictor-acme", "acme/server"),
    local_programs=("acme.serve",),
    local_copies={"known-as": "model_name"},
    local_flags={"port": "grpc_port", "rest_api_port": "http_port", "path": "model_dir", "threads": "", "acme": ""},
)


@pytest.mark.parametrize(
    ("container", "told"),
    [
        ({"args": ["--port=9", "-rest_api_port=8", "--name=m"]}, ("--grpc_port=9", "--http_port=8", "--name=m")),
        ({"args": ["--path", "/m", "--port", "9"]}, ("--model_dir", "/models", "--grpc_port", "9")),
        ({"args": ["--threads=4", "--threads", "4", "--port=9"]}, ("--grpc_port=9",)),
        ({"args": ["--port=$(PORT)"], "env": [{"name": "PORT", "value": "7"}]}, ("--grpc_port=7",)),
        ({"command": ["serve", "--port=9", "--path", "/m/1", "now"], "args": ["go"]},
         ("--grpc_port=9", "--model_dir", "/models/1", "go")),
        ({"args": ["acme", "--port=9", "acme"]}, ("--grpc_port=9", "acme")),
        ({"command": ["python", "-m", "acme.serve", "here", "--port", "9", "--new"], "args": ["--path", "/m", "go"]},
         ("here", "--grpc_port", "9", "--new", "--model_dir", "/models", "go")),
        ({"image": "servery/predictor-acme:2", "command": ["--port=9"], "args": ["--port=9"]}, ("--port=9",)),
        ({"args": ["--known-as=a", "--port=9"]}, ("--model_name=a", "--known-as=a", "--grpc_port=9")),
        ({"args": ["--known-as", "a", "b"]}, ("--model_name=a", "--known-as", "a", "b")),
    ],
    ids=["equals", "apart", "without-a-counterpart", "reference", "command", "program", "command-of-flags", "own-image",
         "copy", "copy-of-the-first"],
)  # fmt: skip
def test_flags_of_a_foreign_program_are_those_of_the_one_that_stands_in(container: Any, told: tuple[str, ...]) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "m", "hostPath": {"path": "/models"}}]}}
    main = {"name": "main", "image": "acme/server:1", "volumeMounts": [{"name": "m", "mountPath": "/m"}], **container}
    assert localize(pod, main, SANDBOX, [FOREIGN], GIVEN, DOORS).arguments[4:] == told


@pytest.mark.parametrize(
    ("image", "told"), [("acme/server:1", ("8080", "/metrics")), ("servery/predictor-acme:1", ("8002", "/own"))]
)
def test_agent_asks_what_stands_in_for_its_metrics_where_it_answers(image: str, told: tuple[str, str]) -> None:
    flags = ["--component-port", "8080", "--component-metrics-port", "8002", "--component-metrics-path", "/own"]
    agent = {"name": "agent", "image": "servery/agent:1", "args": flags}
    beside = {"name": "beside", "image": "acme/other:1"}
    main = {"name": "main", "image": image, "ports": [{"containerPort": 8080}]}
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [beside, main, agent]}}
    arguments = localize(pod, agent, SANDBOX, [FOREIGN], GIVEN, DOORS).arguments
    assert (arguments[6], arguments[8]) == told


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("--predictor_host=iris-predictor.demo", "--predictor_host=127.0.0.1:4001"),
        ("http://iris-predictor.demo.svc.cluster.local:8081/v2", "http://127.0.0.1:4002/v2"),
        ("iris-predictor.demo.svc:80", "127.0.0.1:4001"),
        ("iris-predictor.demo:9000", "iris-predictor.demo:9000"),
        ("iris-predictor.demo.example.com", "iris-predictor.demo.example.com"),
        ("my-iris-predictor.demo", "my-iris-predictor.demo"),
    ],
)
def test_name_of_a_service_becomes_its_door(said: str, found: str) -> None:
    process = localized({"args": [said], "env": [{"name": "HOST", "value": said}]})
    assert process.arguments[-1] == found
    assert process.environment["HOST"] == found
