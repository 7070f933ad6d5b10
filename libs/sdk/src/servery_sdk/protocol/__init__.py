"""Open Inference Protocol and KServe v1, to and from numpy. Pure: bytes in, values out.

The codecs are modules (``v1``, ``v2``, ``grpc``), as is ``batch``, which makes one request of many.
"""

from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata

__all__ = ["Datatype", "InferRequest", "InferResponse", "ModelMetadata", "RequestError", "Tensor", "TensorMetadata"]
