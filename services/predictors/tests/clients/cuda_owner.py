"""Owns memory of a GPU: prints its handle, holds numbers from 0 on, and prints what it holds when told to."""

import ctypes
import sys

import numpy as np

driver = ctypes.CDLL("libcuda.so.1")
COUNT = 64


def call(name, *arguments):
    code = getattr(driver, name)(*arguments)
    assert code == 0, (name, code)


device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
handle = (ctypes.c_ubyte * 64)()
data = np.arange(COUNT, dtype=np.float32)
call("cuInit", 0)
call("cuDeviceGet", ctypes.byref(device), 0)
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
call("cuCtxSetCurrent", context)
call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(data.nbytes))
call("cuMemcpyHtoD_v2", address, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(data.nbytes))
call("cuIpcGetMemHandle", ctypes.byref(handle), address)
print(bytes(handle).hex(), flush=True)
for _ in sys.stdin:
    call("cuMemcpyDtoH_v2", data.ctypes.data_as(ctypes.c_void_p), address, ctypes.c_size_t(data.nbytes))
    print(data.tobytes().hex(), flush=True)
