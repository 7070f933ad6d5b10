"""A model that a client loads with a configuration or with files of its own: Triton's "load with overrides".

Source: Triton, "Model Repository Extension", parameters of the load API; "Secure Deployment Considerations".
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import orjson
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import RequestError
from servery_sdk.serving import Overrides

_CONFIG, _FILE = "config", "file:"


class NotAllowed(ServeryError):
    """The server was not started for it."""

    code = ErrorCode.UNIMPLEMENTED


def from_body(body: bytes) -> Overrides | None:
    """Return what the body of a REST request says; contents are base64. None where it overrides nothing.

    Raises:
        RequestError: Says what is wrong.
    """
    if not body.strip():
        return None
    try:
        parameters = orjson.loads(body).get("parameters", {})
    except (ValueError, AttributeError) as error:
        raise RequestError(f"the body is no JSON object: {error}") from error
    if not isinstance(parameters, dict):
        raise RequestError(f'"parameters" must be an object, found {type(parameters).__name__}')
    return overrides({name: _decoded(name, value) for name, value in parameters.items()})


def _decoded(name: str, value: Any) -> Any:
    if not name.startswith(_FILE):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(f"parameter {name!r} must be base64: {error}") from error


def from_message(parameters: Mapping[str, Any]) -> Overrides | None:
    """Return what the parameters of a gRPC request say; None where they override nothing.

    Raises:
        RequestError: Says what is wrong.
    """
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in parameters.items()}
    return overrides({name: getattr(parameters[name], choice) for name, choice in chosen.items() if choice})


def overrides(parameters: Mapping[str, Any]) -> Overrides | None:
    """Return what parameters say together; None where there are none.

    Raises:
        RequestError: One is unknown or of another type, or files come without the configuration that fits them.
    """
    if not parameters:
        return None
    files = {name.removeprefix(_FILE): value for name, value in parameters.items() if name.startswith(_FILE)}
    unknown = sorted(set(parameters) - {_CONFIG} - {f"{_FILE}{path}" for path in files})
    if unknown:
        raise RequestError(f"unknown parameters {', '.join(unknown)}; known are {_CONFIG!r} and {_FILE + '<path>'!r}")
    configuration = parameters.get(_CONFIG)
    if configuration is not None and not isinstance(configuration, str):
        raise RequestError(f"parameter {_CONFIG!r} must be a text of JSON, found {type(configuration).__name__}")
    if files and configuration is None:
        raise RequestError(f"files replace the model's directory: send the parameter {_CONFIG!r} with them")
    for path, content in files.items():
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise RequestError(f"parameter {_FILE + path!r}: the path must be below the model's directory")
        if not isinstance(content, bytes):
            raise RequestError(f"parameter {_FILE + path!r} must be bytes, found {type(content).__name__}")
    return Overrides(configuration=configuration, files=files)
