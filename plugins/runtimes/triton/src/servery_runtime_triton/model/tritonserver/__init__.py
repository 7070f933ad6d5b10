"""NVIDIA's own Triton as the engine: found, started as a child of this process, asked over gRPC, and ended with us."""
