"""Checks a manifest against a structural OpenAPI schema: the same schema that its CRD carries."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping

from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.manifests import Json

Schema = Mapping[str, Json]

_TYPES: Mapping[str, tuple[type[Json], ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_WORDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def check(value: Json, schema: Schema, path: str = "") -> Iterator[FieldError]:
    """Yield everything that is wrong with ``value``; null where nothing is said of null counts as absent.

    Understands type, properties, additionalProperties, items, required, enum, minimum, maximum, minLength, maxLength,
    pattern, minItems, x-kubernetes-int-or-string and x-kubernetes-preserve-unknown-fields.
    """
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, str | int) or isinstance(value, bool):
            yield _wrong_type(path, value, "integer or string")
        return
    wanted = schema.get("type")
    if wanted is None:
        return
    if not isinstance(value, _TYPES[wanted]) or (isinstance(value, bool) and wanted != "boolean"):
        yield _wrong_type(path, value, wanted)
    elif wanted == "object":
        yield from _check_object(value, schema, path)
    elif wanted == "array":
        yield from _check_array(value, schema, path)
    else:
        yield from _check_scalar(value, schema, path)


def defaulted(value: Json, schema: Schema) -> Json:
    """Return ``value`` with the schema's defaults filled in, as an API server stores it."""
    if isinstance(value, Mapping):
        properties: Mapping[str, Schema] = schema.get("properties", {})
        rest = schema.get("additionalProperties")
        filled = {name: inner["default"] for name, inner in properties.items() if "default" in inner}
        given = {**filled, **{name: found for name, found in value.items() if found is not None or name not in filled}}
        any_other = rest if isinstance(rest, Mapping) else {}
        return {name: defaulted(found, properties.get(name, any_other)) for name, found in given.items()}
    if isinstance(value, list):
        return [defaulted(item, schema.get("items", {})) for item in value]
    return value


def _check_object(value: Mapping[str, Json], schema: Schema, path: str) -> Iterator[FieldError]:
    properties: Mapping[str, Schema] = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    # ``type: object`` alone, such as metadata, is checked by the API server itself.
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or (not properties and rest is None)
    for name in schema.get("required", ()):
        if value.get(name) is None:
            yield FieldError(path=_join(path, name), kind=FieldErrorKind.REQUIRED)
    for name, inner in value.items():
        known = properties.get(name, rest)
        if known is None:
            if not is_open:
                yield _unknown(path, name, properties)
        elif inner is not None:
            yield from check(inner, known, _join(path, name))


def _check_array(value: list[Json], schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) < schema.get("minItems", 0):
        yield FieldError(
            path=path, kind=FieldErrorKind.INVALID, value=value, detail=f"must have at least {schema['minItems']} items"
        )
    for index, item in enumerate(value):
        yield from check(item, schema.get("items", {}), f"{path}[{index}]")


def _check_scalar(value: Json, schema: Schema, path: str) -> Iterator[FieldError]:
    if "enum" in schema and value not in schema["enum"]:
        yield unsupported(path, value, schema["enum"])
    if "minimum" in schema and value < schema["minimum"]:
        detail = f"must be greater than or equal to {schema['minimum']}"
        yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail=detail)
    if "maximum" in schema and value > schema["maximum"]:
        detail = f"must be less than or equal to {schema['maximum']}"
        yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail=detail)
    if isinstance(value, str):
        yield from _check_text(value, schema, path)


def _check_text(value: str, schema: Schema, path: str) -> Iterator[FieldError]:
    if len(value) < schema.get("minLength", 0):
        yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail="must not be empty")
    if len(value) > schema.get("maxLength", len(value)):
        detail = f"must have at most {schema['maxLength']} characters"
        yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail=detail)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail=f"must match {schema['pattern']}")


def _wrong_type(path: str, value: Json, wanted: str) -> FieldError:
    found = _WORDS.get(type(value), "null")
    return FieldError(
        path=path or "<root>",
        kind=FieldErrorKind.INVALID,
        value=value,
        detail=f"must be {_article(wanted)}, found {found}",
    )


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aio' else 'a'} {word}"


def _unknown(path: str, name: str, properties: Mapping[str, Schema]) -> FieldError:
    by_lower_case = {known.lower(): known for known in properties}
    close = [by_lower_case[found] for found in difflib.get_close_matches(str(name).lower(), by_lower_case, n=1)]
    known = f"known fields: {', '.join(sorted(properties))}"
    detail = f"did you mean {json.dumps(close[0])}?" if close else known
    return FieldError(path=_join(path, name), kind=FieldErrorKind.UNKNOWN, detail=detail)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
