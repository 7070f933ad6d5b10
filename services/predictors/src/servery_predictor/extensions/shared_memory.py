"""Regions of memory that clients share with this server, by the names under which they were registered.

Tensors are copied in and out through the file behind the memory, never through a mapping: a client that cuts its memory
short would end the whole process with a signal, and one that goes on writing would change inputs under the model.

Source: Triton's shared-memory extension; its src/shared_memory_manager.cc for the words of errors.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protocol.elements import to_raw
from servery_sdk.protocol.shared import SharedRequest, Span

from servery_predictor.extensions import cuda
from servery_predictor.extensions.ledger import Ledger

_FOLDER = Path("/dev/shm")  # noqa: S108  # where shm_open looks
_SYSTEM, _CUDA = "system", "cuda"
_WORDS = {_SYSTEM: "system", _CUDA: "CUDA"}
_MOST_BYTES = 2**63 - 1


class SharedMemoryError(ServeryError):
    """A region is not there, or not as it was said to be."""

    code = ErrorCode.INVALID_ARGUMENT


class NoSuchRegion(ServeryError):
    """No region of that name was registered."""

    code = ErrorCode.NOT_FOUND


class SharingIsOff(ServeryError):
    """Clients may not share memory with this server."""

    code = ErrorCode.UNAVAILABLE


@dataclass(frozen=True, slots=True)
class _Opened:
    """A region as this process has it open.

    Attributes:
        told: What the ledger said of it then.
    """

    told: Mapping[str, Any]
    memory: _SystemMemory | cuda.Memory


class _SystemMemory:
    """The file behind a POSIX shared memory object."""

    def __init__(self, name: str, key: str) -> None:
        base = key.removeprefix("/")
        if not base or "/" in base or base in (".", "..") or "\0" in base:
            raise SharedMemoryError(f"Unable to open shared memory region: '{key}'")
        try:
            # As shm_open does: no link leads out of the folder.
            self._file = os.open(_FOLDER / base, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SharedMemoryError(f"Unable to open shared memory region: '{key}'") from error
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise SharedMemoryError(f"Invalid shared memory region: '{key}'")
        self.size = found.st_size
        self.identity = [found.st_dev, found.st_ino]
        self._name = name

    def read(self, offset: int, size: int) -> bytes:
        parts = []
        while size:
            # One call reads 2 GiB at most.
            part = os.pread(self._file, size, offset)
            if not part:
                raise SharedMemoryError(f"shared memory region '{self._name}' has become smaller than it was")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > os.fstat(self._file).st_size:
            raise SharedMemoryError(f"shared memory region '{self._name}' has become smaller than it was")
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, offset)
            offset, left = offset + written, left[written:]

    def close(self) -> None:
        os.close(self._file)


class SharedMemory:
    """The regions of all workers: what one registers, every one finds.

    Args:
        is_allowed: Whether clients may share memory at all.
    """

    def __init__(self, ledger: Ledger, *, is_allowed: bool) -> None:
        self._ledger = ledger
        self.is_allowed = is_allowed
        self._opened: dict[str, _Opened] = {}
        self._known: dict[str, dict[str, Any]] = {}
        self._version = -1

    # Register.

    def register_system(self, name: str, key: str, offset: int, size: int) -> None:
        """Make a POSIX shared memory object, or a part of it, known as ``name``.

        Raises:
            ServeryError: The name is taken, there is no such memory, it is smaller, or nobody may.
        """
        self._check(name, _SYSTEM)
        memory = _SystemMemory(name, key)
        if not 0 <= offset + size <= memory.size:
            memory.close()
            raise SharedMemoryError(f"failed to register shared memory region '{name}': invalid args")
        told = {"kind": _SYSTEM, "key": key, "offset": offset, "byte_size": size, "identity": memory.identity}
        self._enter(name, told, memory)

    def register_cuda(self, name: str, handle: bytes, device: int, size: int) -> None:
        """Make memory of a GPU known as ``name``.

        Raises:
            ServeryError: As for system memory, or there is no GPU.
        """
        self._check(name, _CUDA)
        if not cuda.is_here():
            raise SharedMemoryError(f"failed to register CUDA shared memory region: '{name}', GPUs not supported")
        memory = cuda.Memory(name, handle, device, size)
        told = {"kind": _CUDA, "handle": handle.hex(), "device_id": device, "offset": 0, "byte_size": size}
        self._enter(name, told, memory)

    def _check(self, name: str, kind: str) -> None:
        self._allow()
        if not name:
            raise SharedMemoryError(f"'region name' is necessary to register {kind} shared memory region")

    def _allow(self) -> None:
        if not self.is_allowed:
            raise SharingIsOff("clients may not share memory with this server; start it with --allow-client-shm=true")

    def _enter(self, name: str, told: dict[str, Any], memory: _SystemMemory | cuda.Memory) -> None:
        try:
            with self._ledger.change() as document:
                regions = document.setdefault("regions", {})
                if name in regions:
                    raise SharedMemoryError(f"shared memory region '{name}' already in manager")
                document["registered"] = told["number"] = document.get("registered", 0) + 1
                regions[name] = told
        except SharedMemoryError:
            memory.close()
            raise
        self._opened[name] = _Opened(told, memory)

    # Unregister.

    def unregister(self, name: str, *, is_cuda: bool = False) -> None:
        """Forget a region, or all of its kind where ``name`` is empty; one that is not there is forgotten already.

        Raises:
            SharingIsOff: Nobody may.
        """
        self._allow()
        kind = _CUDA if is_cuda else _SYSTEM
        with self._ledger.change() as document:
            regions = document.setdefault("regions", {})
            for known in [name] if name else list(regions):
                if known in regions and regions[known]["kind"] == kind:
                    del regions[known]
        self.refresh()

    def status(self, name: str, *, is_cuda: bool = False) -> list[dict[str, Any]]:
        """Return what is known of one region, or of all of a kind where ``name`` is empty.

        Raises:
            NoSuchRegion: None of that name and kind.
            SharingIsOff: Nobody may.
        """
        self._allow()
        self.refresh()
        kind = _CUDA if is_cuda else _SYSTEM
        if name and name not in self._known:
            raise NoSuchRegion(f"Unable to find {kind} shared memory region: '{name}'")
        if name and self._known[name]["kind"] != kind:
            found = _WORDS[self._known[name]["kind"]]
            raise NoSuchRegion(
                f"The region named '{name}' is registered as {found} shared memory, not {_WORDS[kind]} shared memory"
            )
        fields = ("device_id", "byte_size") if is_cuda else ("key", "offset", "byte_size")
        return [
            {"name": known, **{field: told[field] for field in fields}}
            for known, told in sorted(self._known.items())
            if told["kind"] == kind and name in ("", known)
        ]

    # Use.

    def read(self, span: Span) -> bytes:
        """Return the bytes of a tensor.

        Raises:
            ServeryError: No such region, or the span leaves it.
        """
        offset, memory = self._at(span)
        return memory.read(offset, span.size)

    def put(self, response: InferResponse, request: SharedRequest) -> Mapping[str, Span]:
        """Write the outputs that ``request`` wants in shared memory; return where each is, of the size that it has.

        Raises:
            ServeryError: No such region, the span leaves it, or the output is larger than the span.
        """
        written = {}
        for output in response.outputs:
            place = request.places.get(output.name)
            if place is None:
                continue
            offset, memory = self._at(place)
            data = to_raw(output.datatype, output.data)
            if len(data) > place.size:
                raise SharedMemoryError(
                    f"shared memory size specified with the request for output '{output.name}' ({place.size} bytes) "
                    f"should be at least {len(data)} bytes to hold the results"
                )
            memory.write(offset, data)
            written[output.name] = Span(region=place.region, offset=place.offset, size=len(data))
        return written

    def check(self, request: InferRequest) -> None:
        """Find out before the model is asked whether its outputs have a place.

        Raises:
            ServeryError: No such region, or a span leaves it.
        """
        if isinstance(request, SharedRequest):
            for place in request.places.values():
                self._at(place)

    def _at(self, span: Span) -> tuple[int, _SystemMemory | cuda.Memory]:
        """Return where a span begins in the memory of its region."""
        self._allow()
        if self._version != self._ledger.version:
            self.refresh()
        told = self._known.get(span.region)
        if told is None:
            raise NoSuchRegion(f"Unable to find shared memory region: '{span.region}'")
        if span.offset >= told["byte_size"]:
            raise SharedMemoryError(f"Invalid offset for shared memory region: '{span.region}'")
        if span.offset + span.size > min(told["byte_size"], _MOST_BYTES):
            raise SharedMemoryError(f"Invalid offset + byte size for shared memory region: '{span.region}'")
        opened = self._opened.get(span.region)
        if opened is None:
            opened = self._opened[span.region] = _Opened(told, self._open(span.region, told))
        return told["offset"] + span.offset, opened.memory

    @staticmethod
    def _open(name: str, told: Mapping[str, Any]) -> _SystemMemory | cuda.Memory:
        """Open what another worker has registered."""
        if told["kind"] == _CUDA:
            return cuda.Memory(name, bytes.fromhex(told["handle"]), told["device_id"], told["byte_size"])
        memory = _SystemMemory(name, told["key"])
        if memory.identity != told["identity"]:
            # Made anew under the same key: nobody has registered that.
            memory.close()
            raise SharedMemoryError(f"Unable to open shared memory region: '{told['key']}'")
        return memory

    def refresh(self) -> None:
        """Look at what all workers know, and close what they have forgotten."""
        self._version = self._ledger.version
        self._known = self._ledger.read().get("regions", {})
        for name, opened in list(self._opened.items()):
            if self._known.get(name, {}).get("number") != opened.told["number"]:
                self._opened.pop(name).memory.close()

    def close(self) -> None:
        """Close what is open here."""
        while self._opened:
            self._opened.popitem()[1].memory.close()
