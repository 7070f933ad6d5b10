"""TensorFlow Serving's protocols, to and from the one request: its REST beyond v1's, its gRPC (KServe's ``grpc-v1``)."""
