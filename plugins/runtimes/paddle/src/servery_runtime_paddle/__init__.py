"""Serves PaddlePaddle models."""
