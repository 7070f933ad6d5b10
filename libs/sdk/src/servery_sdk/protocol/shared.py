"""Tensors that lie in memory which client and server share: a request names the place instead of the data.

Source: Triton's shared-memory extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from servery_sdk.manifests import Json
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest

REGION = "shared_memory_region"
OFFSET = "shared_memory_offset"
SIZE = "shared_memory_byte_size"
CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a region, in bytes."""

    region: str
    offset: int
    size: int

    @property
    def parameters(self) -> Mapping[str, Json]:
        """What a tensor says that lies there."""
        return {REGION: self.region, **({OFFSET: self.offset} if self.offset else {}), SIZE: self.size}


class Regions(Protocol):
    """The registered memory."""

    def read(self, span: Span) -> bytes:
        """Return what lies there.

        Raises:
            ServeryError: No such region, or the span leaves it.
        """


class NoRegions:
    """Where memory is not shared."""

    def read(self, span: Span) -> bytes:
        """Raise: nobody could have registered it."""
        raise RequestError(f"input in shared memory region {span.region!r}: this server shares no memory with clients")


@dataclass(slots=True, kw_only=True)
class SharedRequest(InferRequest):
    """A request that wants outputs in shared memory.

    Attributes:
        places: Where, by the output's name; those that are not in it are answered in the response.
    """

    places: Mapping[str, Span]


def span(name: str, parameters: Mapping[str, Json]) -> Span | None:
    """Return where a tensor of these parameters lies, None where it lies in the message.

    Raises:
        RequestError: They contradict themselves.
    """
    region, size = parameters.get(REGION), parameters.get(SIZE)
    if region is None and size is None and OFFSET not in parameters:
        return None
    if region is None or size is None:
        missing, found = (REGION, SIZE) if region is None else (SIZE, REGION)
        raise RequestError(
            f"'{missing}' must be specified along with '{found if found in parameters else OFFSET}' for '{name}'"
        )
    if not isinstance(region, str):
        raise RequestError(f"'{REGION}' of '{name}' must be a string, found {region!r}")
    return Span(region=region, offset=_bytes(name, OFFSET, parameters.get(OFFSET, 0)), size=_bytes(name, SIZE, size))


def without_span(parameters: Mapping[str, Json]) -> dict[str, Json]:
    """Return what ``parameters`` say beside the place."""
    return {name: value for name, value in parameters.items() if name not in (REGION, OFFSET, SIZE)}


def refuse_classification(name: str, parameters: Mapping[str, Json]) -> None:
    """Refuse an output as classes.

    Raises:
        RequestError: It is wanted.

    Source: Triton's classification extension, which is off here.
    """
    if parameters.get(CLASSIFICATION):
        raise RequestError(
            f"output {name!r}: the classification extension is off; ask for the output itself and take the classes from it"
        )


def _bytes(name: str, parameter: str, value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RequestError(f"'{parameter}' of '{name}' must be a count of bytes, found {value!r}")
    return value
