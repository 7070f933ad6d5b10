"""Shared memory over gRPC, as Triton's published ``simple_grpc_shm_string_client.py`` uses it, texts and all."""

import sys

import numpy as np
import tritonclient.grpc as grpcclient
import tritonclient.utils.shared_memory as shm
from tritonclient import utils

client = grpcclient.InferenceServerClient(url=sys.argv[1])
assert "system_shared_memory" in client.get_server_metadata().extensions
client.unregister_system_shared_memory()
client.unregister_cuda_shared_memory()

texts = np.array([str(number).encode() for number in range(16)], dtype=object)
serialized = utils.serialize_byte_tensor(texts)
size = utils.serialized_byte_size(serialized)
handle = shm.create_shared_memory_region("texts", f"/texts_{sys.argv[2]}", size * 3)
client.register_system_shared_memory("texts", f"/texts_{sys.argv[2]}", size * 3)
shm.set_shared_memory_region(handle, [serialized])

inputs = [grpcclient.InferInput("INPUT0", [1, 16], "BYTES"), grpcclient.InferInput("INPUT1", [1, 16], "BYTES")]
inputs[0].set_shared_memory("texts", size)
# The other one goes in the message: contents and regions may be mixed.
inputs[1].set_data_from_numpy(texts.reshape(1, 16))
outputs = [grpcclient.InferRequestedOutput("OUTPUT0"), grpcclient.InferRequestedOutput("OUTPUT1")]
outputs[0].set_shared_memory("texts", size * 2, offset=size)

results = client.infer(model_name="texts", inputs=inputs, outputs=outputs)
output = results.get_output("OUTPUT0")
found = shm.get_contents_as_numpy(handle, utils.triton_to_np_dtype(output.datatype), output.shape, offset=size)
assert (found == texts.reshape(1, 16)).all()
assert (results.as_numpy("OUTPUT1") == texts.reshape(1, 16)).all()

status = client.get_system_shared_memory_status("texts", as_json=True)
assert status["regions"]["texts"]["key"] == f"/texts_{sys.argv[2]}"
assert not client.get_cuda_shared_memory_status().regions
client.unregister_system_shared_memory("texts")
assert not client.get_system_shared_memory_status().regions
shm.destroy_shared_memory_region(handle)
