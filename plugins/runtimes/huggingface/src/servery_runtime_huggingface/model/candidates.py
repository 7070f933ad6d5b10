"""Classes that a request names: an input ``candidate_labels``, or a parameter for all rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.serving import InputError

from servery_runtime_huggingface.model.files import input_of
from servery_runtime_huggingface.model.parameters import word

CANDIDATES = "candidate_labels"
TEMPLATE = "hypothesis_template"


def candidates_of(request: InferRequest, name: str) -> tuple[Tensor, list[list[str]]]:
    """Return the input ``name`` and the classes of each of its rows.

    Raises:
        InputError: No classes, or not for every row.
    """
    if (shared := request.parameters.get(CANDIDATES)) is not None:
        if not isinstance(shared, list) or not shared or not all(isinstance(one, str) for one in shared):
            raise InputError(f"parameter {CANDIDATES!r}: must be a list of texts, found {shared!r}")
        others = tuple(tensor for tensor in request.inputs if tensor.name != CANDIDATES)
        given = input_of(replace(request, inputs=others), name)[name]
        return given, [list(shared)] * (len(given.data) if given.data.ndim else 0)
    found = input_of(request, name, CANDIDATES)
    given, labels = found[name], found[CANDIDATES]
    shape = list(labels.data.shape)
    if labels.datatype is not Datatype.BYTES or len(shape) != 2 or not shape[1] or shape[0] != len(given.data):
        raise InputError(
            f"input {CANDIDATES!r} is {labels.datatype} {shape}; "
            f"it takes the classes of each row of {name!r} {list(given.data.shape)}, BYTES [rows, classes]"
        )
    try:
        rows = [[one.decode() if isinstance(one, bytes) else str(one) for one in row] for row in labels.data.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"input {CANDIDATES!r} {shape}: not UTF-8: {error}") from error
    return given, rows


def template_of(parameters: Mapping[str, Json], default: str) -> str:
    """Return the sentence that a class is put into.

    Raises:
        InputError: There is no one place for it.
    """
    template = word(parameters, TEMPLATE, default)
    if template.count("{}") != 1:
        raise InputError(f"parameter {TEMPLATE!r}: must have one {{}} for the class, found {template!r}")
    return template
