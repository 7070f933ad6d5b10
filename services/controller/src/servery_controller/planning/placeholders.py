"""``{{.Name}}`` and its like in a runtime's pod, filled from the service's metadata.

Source: KServe utils.ReplacePlaceholders, a Go template over ObjectMeta; this is the part of it that manifests use.
"""

from __future__ import annotations

import re

from servery_sdk.manifests import Json, Manifest

from servery_controller.planning.errors import NoPlan

_PLACEHOLDER = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_OF_GO = re.compile(r"(?:^|[\s(])\.[A-Z]")
"""What looks up a field; other braces are somebody else's, such as a chat template's."""
_KNOWN = re.compile(r"\.(Name|Namespace|Labels|Annotations)(?:\.([\w-]+))?")


def fill(value: Json, metadata: Manifest, *, where: str) -> Json:
    """Return ``value`` with every placeholder in its strings filled.

    Raises:
        NoPlan: A label or annotation that the service does not have, or an expression that is not known.
    """
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: _filled(match, metadata, where), value) if "{{" in value else value
    if isinstance(value, list):
        return [fill(item, metadata, where=where) for item in value]
    if isinstance(value, dict):
        return {key: fill(item, metadata, where=where) for key, item in value.items()}
    return value


def _filled(match: re.Match[str], metadata: Manifest, where: str) -> str:
    return _lookup(match[1], metadata, where) if _OF_GO.search(match[1]) else match[0]


def _lookup(expression: str, metadata: Manifest, where: str) -> str:
    known = _KNOWN.fullmatch(expression)
    field, key = (known[1].lower(), known[2]) if known else ("", None)
    if field in {"name", "namespace"} and key is None:
        return str(metadata[field])
    if field in {"labels", "annotations"} and key is not None:
        found = (metadata.get(field) or {}).get(key)
        if found is None:
            raise NoPlan(f"{where}: placeholder {{{{{expression}}}}}: the service has no {field[:-1]} {key!r}; add it")
        return str(found)
    raise NoPlan(
        f"{where}: unknown placeholder {{{{{expression}}}}}: known are .Name, .Namespace, .Labels.<key>, .Annotations.<key>"
    )
