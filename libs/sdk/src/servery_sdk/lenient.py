"""Reads what others write. It need not have the form that it should have: another one reads as if it were not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from servery_sdk.manifests import Manifest


def mapping(parent: Manifest, key: str) -> Manifest:
    """Return an object, empty where there is none."""
    found = parent.get(key)
    return found if isinstance(found, Mapping) else {}


def mappings(parent: Manifest, key: str) -> Iterator[Manifest]:
    """Yield the objects of a list."""
    found = parent.get(key)
    if isinstance(found, Sequence):
        yield from (item for item in found if isinstance(item, Mapping))


def text(parent: Manifest, key: str) -> str:
    """Return a string, empty where there is none."""
    found = parent.get(key)
    return found if isinstance(found, str) else ""


def number(parent: Manifest, key: str) -> int:
    """Return an integer, 0 where there is none."""
    found = parent.get(key)
    return found if isinstance(found, int) else 0


def conditions(status: Manifest) -> dict[str, Manifest]:
    """Return ``conditions`` by type."""
    return {text(condition, "type"): condition for condition in mappings(status, "conditions")}


def is_current(manifest: Manifest) -> bool:
    """Return whether the status speaks of the present spec: what was said of an earlier one is not said of this."""
    status, metadata = mapping(manifest, "status"), mapping(manifest, "metadata")
    return number(status, "observedGeneration") >= number(metadata, "generation")
