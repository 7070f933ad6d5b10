"""``config.pbtxt``: read, completed, and as the JSON that Python models and clients get.

The schema is ``protos/triton/model_config.proto``, compiled like our other protos. A descriptor built while the program
runs would need no compiler either, but then fields would have no types for mypy, and a client that asks for the
configuration over gRPC needs the compiled message anyway.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError

FILE = "config.pbtxt"

_TYPE = "TYPE_"
_STRING = f"{_TYPE}STRING"
_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "ensemble": "ensemble"}
_ALIASES = {"onnx": "onnxruntime", "torch": "pytorch"}
_FILES = {"model.onnx": "onnxruntime", "model.pt": "pytorch", "model.py": "python"}
_PLATFORM_OF = {backend: platform for platform, backend in _PLATFORMS.items()}


def read(directory: Path) -> pb.ModelConfig:
    """Return what ``config.pbtxt`` in a model's directory says, or an empty configuration without one.

    Raises:
        LoadError: It is not Triton's text format, or has an unknown field; says file, line and column.
    """
    file = directory / FILE
    if not file.is_file():
        return pb.ModelConfig()
    try:
        return text_format.Parse(file.read_text(), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise LoadError(f"{file}: is not a model configuration: {error}") from error


def from_json(text: str, *, model: str) -> pb.ModelConfig:
    """Return the configuration that a client sends; the inverse of ``as_json``.

    Raises:
        LoadError: It is not JSON, or has an unknown field.
    """
    try:
        return json_format.Parse(text, pb.ModelConfig())
    except json_format.ParseError as error:
        raise LoadError(f"model {model!r}: the configuration that it is loaded with: {error}") from error


def backend_of(config: pb.ModelConfig, versions: Path) -> str:
    """Return the name of what runs a model: said by its configuration, or by the file that is there.

    Args:
        config: Of the model.
        versions: The directory whose numeric folders hold the model's files.

    Raises:
        LoadError: Neither says; lists the files that would.
    """
    if config.HasField("ensemble_scheduling"):
        return "ensemble"
    if config.backend:
        return _ALIASES.get(config.backend, config.backend)
    if config.platform:
        return _PLATFORMS.get(config.platform, config.platform)
    for name, backend in _FILES.items():
        if config.default_model_filename == name or any(versions.glob(f"[0-9]*/{name}")):
            return backend
    raise LoadError(
        f"{versions}: {FILE} names no backend, and no version holds a file that says it: {', '.join(sorted(_FILES))}"
    )


def platform_of(config: pb.ModelConfig, backend: str) -> str:
    """Return what metadata call the platform; backends that have none go by their own name."""
    return config.platform or _PLATFORM_OF.get(backend, backend)


def datatype(data_type: int) -> Datatype:
    """Return the wire's name of an element type.

    Raises:
        LoadError: It is ``TYPE_INVALID``, which is what a missing ``data_type`` is.
    """
    name = pb.DataType.Name(data_type)
    if name == _STRING:
        return Datatype.BYTES
    try:
        return Datatype(name.removeprefix(_TYPE))
    except ValueError as error:
        raise LoadError(f"data_type {name}: give one of {', '.join(sorted(pb.DataType.keys()))}") from error


def data_type(datatype: Datatype) -> str:
    """Return the configuration's name of an element type; the inverse of ``datatype``."""
    return _STRING if datatype is Datatype.BYTES else f"{_TYPE}{datatype}"


def as_json(config: Message) -> dict[str, Json]:
    """Return every field, set or not, under its own name; enums by name and 64-bit integers as numbers, as Triton does.

    Messages and members of a oneof that are not set are left out.
    """
    return {
        field.name: _field(config, field)
        for field in config.DESCRIPTOR.fields
        if not field.has_presence or config.HasField(field.name)
    }


def _field(message: Message, field: Any) -> Json:
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        item = kind.fields_by_name["value"]
        return {str(key): _value(item, value[key]) for key in sorted(value)}
    return [_value(field, element) for element in value] if field.is_repeated else _value(field, value)


def _value(field: Any, value: Json) -> Json:
    if field.message_type is not None:
        return as_json(value)
    return value if field.enum_type is None else field.enum_type.values_by_number[value].name
