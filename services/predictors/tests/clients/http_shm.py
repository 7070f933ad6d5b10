"""Shared memory over REST, as Triton's published ``simple_http_shm_client.py`` uses it: one region for two inputs and two outputs."""

import sys

import numpy as np
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm
from tritonclient import utils

client = httpclient.InferenceServerClient(url=sys.argv[1])
assert "system_shared_memory" in client.get_server_metadata()["extensions"]
client.unregister_system_shared_memory()
client.unregister_cuda_shared_memory()

input0 = np.arange(16, dtype=np.int32)
input1 = np.ones(16, dtype=np.int32)
size = input0.nbytes
output_handle = shm.create_shared_memory_region("output_data", f"/output_{sys.argv[2]}", size * 2)
client.register_system_shared_memory("output_data", f"/output_{sys.argv[2]}", size * 2)
input_handle = shm.create_shared_memory_region("input_data", f"/input_{sys.argv[2]}", size * 2)
shm.set_shared_memory_region(input_handle, [input0])
shm.set_shared_memory_region(input_handle, [input1], offset=size)
client.register_system_shared_memory("input_data", f"/input_{sys.argv[2]}", size * 2)

inputs = [httpclient.InferInput("INPUT0", [1, 16], "INT32"), httpclient.InferInput("INPUT1", [1, 16], "INT32")]
inputs[0].set_shared_memory("input_data", size)
inputs[1].set_shared_memory("input_data", size, offset=size)
outputs = [httpclient.InferRequestedOutput("OUTPUT0"), httpclient.InferRequestedOutput("OUTPUT1", binary_data=False)]
outputs[0].set_shared_memory("output_data", size)
outputs[1].set_shared_memory("output_data", size, offset=size)

results = client.infer(model_name="simple", inputs=inputs, outputs=outputs)
found = []
for index, name in enumerate(("OUTPUT0", "OUTPUT1")):
    output = results.get_output(name)
    assert output is not None
    assert "data" not in output
    assert output["parameters"]["shared_memory_byte_size"] == size
    dtype = utils.triton_to_np_dtype(output["datatype"])
    found.append(shm.get_contents_as_numpy(output_handle, dtype, output["shape"], offset=index * size))
assert (found[0] == input0 + input1).all()
assert (found[1] == input0 - input1).all()

status = client.get_system_shared_memory_status()
assert [region["name"] for region in status] == ["input_data", "output_data"]
assert status[0] == {"name": "input_data", "key": f"/input_{sys.argv[2]}", "offset": 0, "byte_size": size * 2}
client.unregister_system_shared_memory()
assert client.get_system_shared_memory_status() == []
del found
shm.destroy_shared_memory_region(input_handle)
shm.destroy_shared_memory_region(output_handle)
