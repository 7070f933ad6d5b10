from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    PENDING: _ClassVar[State]
    FETCHING: _ClassVar[State]
    LOADING: _ClassVar[State]
    LOADED: _ClassVar[State]
    FAILED: _ClassVar[State]
    UNFIT: _ClassVar[State]
STATE_UNSPECIFIED: State
PENDING: State
FETCHING: State
LOADING: State
LOADED: State
FAILED: State
UNFIT: State

class PodReport(_message.Message):
    __slots__ = ("namespace", "pod", "service", "models")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    POD_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    pod: str
    service: str
    models: _containers.RepeatedCompositeFieldContainer[ModelReport]
    def __init__(self, namespace: _Optional[str] = ..., pod: _Optional[str] = ..., service: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelReport, _Mapping]]] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("name", "state", "reason", "uri")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: State
    reason: str
    uri: str
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[State, str]] = ..., reason: _Optional[str] = ..., uri: _Optional[str] = ...) -> None: ...

class Assigned(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, models: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("name", "uri", "framework", "memory_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    framework: str
    memory_bytes: int
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., framework: _Optional[str] = ..., memory_bytes: _Optional[int] = ...) -> None: ...
