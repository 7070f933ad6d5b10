"""TensorFlow Serving's REST and gRPC, for models that have signatures."""
