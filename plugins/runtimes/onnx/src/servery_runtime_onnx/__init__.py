"""Serves ONNX models."""
