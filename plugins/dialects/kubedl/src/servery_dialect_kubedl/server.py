"""What the flags of a model server say: the ports it listens on, and the directory it looks into."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from servery_sdk.lenient import mappings, text
from servery_sdk.manifests import Json, Manifest

from servery_dialect_kubedl.kinds import GRPC_PORT, HTTP_PORT, MODEL_DIRECTORY, PORT_NAMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A framework's own server.

    Attributes:
        image: How the repository of its own image ends.
        http_flag: Says the port of REST; likewise the other flags.
        http_port: Where its own image listens if nobody says.
        finds_by_name: Its own image looks below ``MODEL_BASE_PATH`` for ``MODEL_NAME`` if nobody says.
    """

    image: str
    http_flag: str
    grpc_flag: str
    model_flag: str
    http_port: int
    grpc_port: int
    finds_by_name: bool = False


SERVERS: Mapping[str, Server] = {
    "TFServing": Server(
        image="tensorflow/serving",
        http_flag="rest_api_port",
        grpc_flag="port",
        model_flag="model_base_path",
        http_port=8501,
        grpc_port=8500,
        finds_by_name=True,
    ),
    "Triton": Server(
        image="tritonserver",
        http_flag="http-port",
        grpc_flag="grpc-port",
        model_flag="model-repository",
        http_port=8000,
        grpc_port=8001,
    ),
}
"""By ``spec.framework``."""


def ports(container: Manifest, server: Server) -> tuple[int, ...]:
    """Return the ports of REST and gRPC, that of REST first; gRPC's alone where no other is known.

    What the flags say counts, then the names of declared ports, then KubeDL's and the server's own numbers.
    """
    declared = [port for port in mappings(container, "ports") if is_port(port.get("containerPort"))]
    numbers = [port["containerPort"] for port in declared]
    named = {PORT_NAMES.get(text(port, "name"), text(port, "name")): port["containerPort"] for port in declared}
    defaults = _is_own(container, server)

    def known(number: int, otherwise: bool = False) -> int | None:
        return number if number in numbers or otherwise else None

    grpc = _number(container, server.grpc_flag) or named.get("grpc")
    http = _number(container, server.http_flag) or named.get("http")
    grpc = grpc or known(GRPC_PORT) or known(server.grpc_port, defaults) or GRPC_PORT
    others = [number for number in numbers if number != grpc]
    http = http or (HTTP_PORT if HTTP_PORT in others else None) or known(server.http_port, defaults)
    http = http or (others[0] if others else HTTP_PORT)
    return (http, grpc) if http != grpc else (grpc,)


def ordered(container: Manifest, numbers: tuple[int, ...]) -> list[Manifest]:
    """Return the container's ports with those of ``numbers`` first, declared or not, in names that Kubernetes takes."""
    given = [
        {**port, "name": PORT_NAMES[text(port, "name")]} if text(port, "name") in PORT_NAMES else port
        for port in mappings(container, "ports")
    ]
    by_number = {port["containerPort"]: port for port in reversed(given)}
    taken = {text(port, "name") for port in given}
    first = []
    for name, number in zip(("http", "grpc"), numbers, strict=False):
        port = by_number.get(number, {"containerPort": number, "protocol": "TCP"})
        first.append(port if port.get("name") or name in taken else {"name": name, **port})
    return [*first, *(port for port in given if port["containerPort"] not in numbers)]


def looks_into(container: Manifest, server: Server, model_name: str) -> str | None:
    """Return the absolute directory in which the server is told to look for its model, None where nobody says."""
    told = _flag(container, server.model_flag)
    if told is not None:
        path = posixpath.normpath(told)
        return path if path.startswith("/") and path != "/" else None
    own = {text(variable, "name") for variable in mappings(container, "env")} & {"MODEL_BASE_PATH", "MODEL_NAME"}
    if server.finds_by_name and model_name and not own and _is_own(container, server):
        return f"{MODEL_DIRECTORY}/{model_name}"
    return None


def is_of(container: Manifest, server: Server) -> bool:
    """Return whether a container runs ``server``, by its image or its flags."""
    return _has_image(container, server) or any(
        _flag(container, name) for name in (server.http_flag, server.model_flag)
    )


def is_port(number: Json) -> bool:
    """Return whether ``number`` is one of a port."""
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < 65536


def _is_own(container: Manifest, server: Server) -> bool:
    """Return whether the server's own image runs by its own entry point, and so with its own defaults."""
    return _has_image(container, server) and not container.get("command")


def _has_image(container: Manifest, server: Server) -> bool:
    repository = text(container, "image").partition("@")[0]
    head, slash, last = repository.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}".endswith(server.image)


def _number(container: Manifest, flag: str) -> int | None:
    told = _flag(container, flag)
    return int(told) if told is not None and told.isdecimal() and is_port(int(told)) else None


def _flag(container: Manifest, name: str) -> str | None:
    """Return the last value of ``--name=value`` or ``--name value``."""
    words = list(_words(container))
    found = None
    for word, after in zip(words, [*words, ""][1:], strict=True):
        flag, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == name:
            found = value if equals else after
    return found


def _words(container: Manifest) -> Iterator[str]:
    for part in ("command", "args"):
        given = container.get(part)
        yield from (word for word in (given if isinstance(given, list) else ()) if isinstance(word, str))
