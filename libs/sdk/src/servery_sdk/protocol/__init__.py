"""Open Inference Protocol and KServe v1, to and from numpy. Pure: bytes in, values out."""

from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.tensors import InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata

__all__ = ["Datatype", "InferRequest", "InferResponse", "ModelMetadata", "Tensor", "TensorMetadata"]
