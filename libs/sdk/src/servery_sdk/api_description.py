"""Routes as OpenAPI describes them.

Source: OpenAPI Specification 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from servery_sdk.routes import Route

_WITH_BODY = frozenset({"POST", "PUT"})


def paths(routes: Iterable[Route]) -> dict[str, dict[str, Any]]:
    """Return what OpenAPI's ``paths`` says of ``routes``."""
    found: dict[str, dict[str, Any]] = {}
    for route in routes:
        found.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return found


def _operation(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": route.summary,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"\{(\w+)\}", route.path)
        ],
        "responses": {
            "200": {"description": "the answer"},
            **{status: {"description": text} for status, text in route.failures.items()},
        },
    }
    if route.query:
        described["parameters"] += [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
            for name, text in route.query.items()
        ]
    if route.method in _WITH_BODY and route.takes:
        described["requestBody"] = {"content": {kind: {} for kind in route.takes}}
    return described
