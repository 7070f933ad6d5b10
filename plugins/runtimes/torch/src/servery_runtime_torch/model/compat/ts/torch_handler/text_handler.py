"""Where TorchServe keeps the class that handlers of texts extend."""

from .text_classifier import TextHandler

__all__ = ["TextHandler"]
