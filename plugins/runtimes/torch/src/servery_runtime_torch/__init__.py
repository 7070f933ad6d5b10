"""Serves PyTorch models, TorchServe's archives among them."""
