"""Bodies of forms, as ``curl -F`` sends them.

Source: RFC 7578; RFC 2046, section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser

from servery_sdk.serving import InputError


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a form; ``content_type`` is empty where its sender said none."""

    name: str
    content_type: str
    data: bytes


def boundary(content_type: str) -> bytes | None:
    """Return what stands between the parts of such a body; None where it is no form."""
    message = _head(f"content-type: {content_type}".encode("latin-1"))
    found = message.get_boundary() if message.get_content_type() == "multipart/form-data" else None
    return found.encode("latin-1") if found else None


def parts(body: bytes, between: bytes) -> list[Part]:
    """Return the fields of a form, in order.

    Raises:
        InputError: The body is cut short, or a field has no name.
    """
    pieces = (b"\r\n" + body).split(b"\r\n--" + between)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InputError("the form does not end with its boundary; it is cut short")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, found, data = piece.partition(b"\r\n\r\n")
    message = _head(head.lstrip())
    name = message.get_param("name", header="content-disposition")
    if not found or not isinstance(name, str):
        raise InputError("a field of the form has no name")
    return Part(name, message.get_content_type() if "content-type" in message else "", data)


def _head(lines: bytes) -> Message:
    return BytesParser().parsebytes(lines, headersonly=True)


def by_name(found: Iterable[Part]) -> Mapping[str, list[Part]]:
    """Return the fields, all of one name together."""
    grouped: dict[str, list[Part]] = {}
    for part in found:
        grouped.setdefault(part.name, []).append(part)
    return grouped
