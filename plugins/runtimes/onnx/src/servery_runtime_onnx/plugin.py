"""The descriptor of the onnx runtime. Does not import its framework."""
