"""Holds ``ts``: put on the path while a handler is imported, where the real TorchServe is not installed."""
