"""Which of PyTorch's exceptions are the caller's fault, and the words for them."""

from __future__ import annotations

import torch
from PIL import UnidentifiedImageError
from servery_sdk.protocol import InferRequest
from servery_sdk.serving import InputError

_CALLERS = (ValueError, TypeError, LookupError, AssertionError, RuntimeError, UnidentifiedImageError)
"""What a request of a wrong kind or shape makes PyTorch, PIL, Captum and handlers raise; programs assert their guards."""

_OURS = (torch.OutOfMemoryError, torch.AcceleratorError, NotImplementedError)
"""RuntimeErrors that no other request would have avoided."""

_CLIENT_ERRORS = range(400, 500)


def is_callers(error: Exception) -> bool:
    """Return whether another request would have been answered, as far as the exception's kind or code says."""
    code = getattr(error, "error_code", None)
    return (
        code in _CLIENT_ERRORS
        if isinstance(code, int)
        else isinstance(error, _CALLERS) and not isinstance(error, _OURS)
    )


def refused(error: Exception, request: InferRequest) -> InputError:
    """Return ``error`` as the caller's fault, with the inputs' names and shapes."""
    given = ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in request.inputs)
    words = str(error).strip().partition("\n\n")[0]
    return InputError(f"{type(error).__name__}: {words}; the inputs are {given}")
