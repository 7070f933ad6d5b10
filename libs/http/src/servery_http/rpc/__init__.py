"""gRPC on our own HTTP/2 front: quick unary calls are answered here, all others by a ``grpcio`` server behind it."""
