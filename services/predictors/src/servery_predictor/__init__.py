"""The model server: one data plane under v1, v2 and gRPC."""
