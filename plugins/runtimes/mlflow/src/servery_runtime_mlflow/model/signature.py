"""A model's signature as the protocols' tensors.

Source: MLflow, "Model signatures and input examples"; MLServer's ``mlserver_mlflow.metadata``, whose element types
these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.types import DataType, Schema, TensorSpec
from mlflow.types.schema import Array as ListType
from servery_sdk.protocol import Datatype, TensorMetadata

DATATYPES = {
    DataType.boolean: Datatype.BOOL,
    DataType.integer: Datatype.INT32,
    DataType.long: Datatype.INT64,
    DataType.float: Datatype.FP32,
    DataType.double: Datatype.FP64,
    DataType.string: Datatype.BYTES,
    DataType.binary: Datatype.BYTES,
    DataType.datetime: Datatype.BYTES,
}
ANY = -1
"""A length that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or an output of the signature.

    Attributes:
        name: The signature's, else ``input-<k>`` or ``output-<k>``.
        shape: A column is ``[rows]``, a column of lists has an axis for each level of them.
        kind: MLflow's type: ``DataType.double``, a list, an object, a numpy type.
        is_column: Of a table; else a tensor.
        is_named: By the signature; it names all or none.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    kind: Any
    is_column: bool
    is_named: bool
    required: bool

    @property
    def is_plain(self) -> bool:
        """Whether it is a column of single values, which a matrix can hold."""
        return isinstance(self.kind, DataType)

    @property
    def metadata(self) -> TensorMetadata:
        """What clients are told of it."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=self.shape)

    def __str__(self) -> str:
        optional = "" if self.required else ", optional"
        return f"{self.name!r} {self.datatype} {list(self.shape)}{optional}"


def ports(schema: Schema | None, prefix: str) -> tuple[Port, ...]:
    """Return what ``schema`` names, in its order; nothing where there is no schema."""
    if schema is None:
        return ()
    return tuple(_port(spec, f"{prefix}-{index}") for index, spec in enumerate(schema.inputs))


def described(wanted: Iterable[Port]) -> str:
    """Return ``wanted`` as messages spell it."""
    return ", ".join(map(str, wanted))


def has_free_rows(found: Sequence[Port]) -> bool:
    """Return whether axis 0 of every port may have any length."""
    return all(port.shape[:1] == (ANY,) for port in found)


def _port(spec: Any, default: str) -> Port:
    shape: tuple[int, ...]
    if isinstance(spec, TensorSpec):
        shape = tuple(int(length) for length in spec.shape)
        datatype = next((found for found in Datatype if found.dtype == spec.type), Datatype.BYTES)
    else:
        element, shape = spec.type, (ANY,)
        while isinstance(element, ListType):
            element, shape = element.dtype, (*shape, ANY)
        if isinstance(element, DataType):
            datatype = DATATYPES[element]
        else:
            # Objects and maps, and lists of them, are texts of JSON.
            datatype, shape = Datatype.BYTES, (ANY,)
    return Port(
        name=default if spec.name is None else str(spec.name),
        datatype=datatype,
        shape=shape,
        kind=spec.type,
        is_column=not isinstance(spec, TensorSpec),
        is_named=spec.name is not None,
        required=bool(spec.required),
    )
