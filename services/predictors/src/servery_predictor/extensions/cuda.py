"""Memory of a GPU that another process has made, through the CUDA driver's own library: no framework is needed.

gpu: everything here but ``is_here`` runs only where there is one.

Source: CUDA Driver API, "Memory Management": cuIpcOpenMemHandle and its relatives.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from servery_sdk.errors import ErrorCode, ServeryError

HANDLE_BYTES = 64
_LAZY_PEER_ACCESS = 1


class CudaError(ServeryError):
    """The driver said no."""

    code = ErrorCode.INVALID_ARGUMENT


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_ubyte * HANDLE_BYTES),)


@functools.cache
def _driver() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    works = not library.cuInit(0) and not library.cuDeviceGetCount(ctypes.byref(count)) and count.value
    return library if works else None


def is_here() -> bool:
    """Return whether there is a GPU, and its driver."""
    return _driver() is not None


@functools.cache
def _context(device: int) -> ctypes.c_void_p:
    """Return the context that every library of this process shares on a device."""
    number, context = ctypes.c_int(0), ctypes.c_void_p()
    _call("cuDeviceGet", ctypes.byref(number), ctypes.c_int(device))
    _call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
    return context


def _call(name: str, *arguments: Any) -> None:
    library = _driver()
    assert library is not None
    code = getattr(library, name)(*arguments)
    if code:
        words = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(words))
        raise CudaError(f"{name}: {(words.value or b'unknown error').decode()}")


class Memory:
    """Memory that a client's ``cudaIpcMemHandle_t`` names.

    Raises:
        CudaError: The handle names none, or a smaller one.
    """

    def __init__(self, name: str, handle: bytes, device: int, size: int) -> None:
        if len(handle) != HANDLE_BYTES:
            raise CudaError("'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t")
        self._device = device
        self._address = ctypes.c_uint64()
        try:
            self._enter()
            _call(
                "cuIpcOpenMemHandle_v2",
                ctypes.byref(self._address),
                _Handle.from_buffer_copy(handle),
                ctypes.c_uint(_LAZY_PEER_ACCESS),
            )
        except CudaError as error:
            raise CudaError(f"failed to register shared memory region '{name}': invalid args") from error
        found = ctypes.c_size_t()
        _call("cuMemGetAddressRange_v2", None, ctypes.byref(found), self._address)
        if size > found.value:
            self.close()
            raise CudaError(f"failed to register shared memory region '{name}': invalid args")

    def _enter(self) -> None:
        _call("cuCtxSetCurrent", _context(self._device))

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy in main memory."""
        self._enter()
        copy = ctypes.create_string_buffer(size)
        _call("cuMemcpyDtoH_v2", copy, ctypes.c_uint64(self._address.value + offset), ctypes.c_size_t(size))
        return copy.raw

    def write(self, offset: int, data: bytes) -> None:
        """Copy from main memory."""
        self._enter()
        _call("cuMemcpyHtoD_v2", ctypes.c_uint64(self._address.value + offset), data, ctypes.c_size_t(len(data)))

    def close(self) -> None:
        """Give it back."""
        self._enter()
        _call("cuIpcCloseMemHandle", self._address)
