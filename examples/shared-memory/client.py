"""Rows and their classes go through shared memory: python client.py HOST:PORT MODEL"""

import sys

import numpy as np
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm

url, model = sys.argv[1:]
rows = np.array([[6.8, 2.8, 4.8, 1.4], [5.1, 3.5, 1.4, 0.2]])
region = shm.create_shared_memory_region("iris", "/servery-example-iris", rows.nbytes + 16)
client = httpclient.InferenceServerClient(url)
try:
    shm.set_shared_memory_region(region, [rows])
    client.register_system_shared_memory("iris", "/servery-example-iris", rows.nbytes + 16)

    x = httpclient.InferInput("x", [2, 4], "FP64")
    x.set_shared_memory("iris", rows.nbytes)
    classes = httpclient.InferRequestedOutput("output-0")
    classes.set_shared_memory("iris", 16, offset=rows.nbytes)
    client.infer(model, [x], outputs=[classes])
    print(shm.get_contents_as_numpy(region, np.int64, [2], offset=rows.nbytes).tolist())
finally:
    client.unregister_system_shared_memory("iris")
    shm.destroy_shared_memory_region(region)
