from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FileState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE_STATE_UNSPECIFIED: _ClassVar[FileState]
    FILE_STATE_WAITING: _ClassVar[FileState]
    FILE_STATE_FETCHING: _ClassVar[FileState]
    FILE_STATE_FETCHED: _ClassVar[FileState]
FILE_STATE_UNSPECIFIED: FileState
FILE_STATE_WAITING: FileState
FILE_STATE_FETCHING: FileState
FILE_STATE_FETCHED: FileState

class FetchRequest(_message.Message):
    __slots__ = ("name", "uri", "allow_patterns", "ignore_patterns", "tell_files")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    ALLOW_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_PATTERNS_FIELD_NUMBER: _ClassVar[int]
    TELL_FILES_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    allow_patterns: _containers.RepeatedScalarFieldContainer[str]
    ignore_patterns: _containers.RepeatedScalarFieldContainer[str]
    tell_files: bool
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., allow_patterns: _Optional[_Iterable[str]] = ..., ignore_patterns: _Optional[_Iterable[str]] = ..., tell_files: _Optional[bool] = ...) -> None: ...

class FetchProgress(_message.Message):
    __slots__ = ("objects", "done_bytes", "total_bytes", "waits_for", "path", "files")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    objects: int
    done_bytes: int
    total_bytes: int
    waits_for: str
    path: str
    files: _containers.RepeatedCompositeFieldContainer[FileProgress]
    def __init__(self, objects: _Optional[int] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., waits_for: _Optional[str] = ..., path: _Optional[str] = ..., files: _Optional[_Iterable[_Union[FileProgress, _Mapping]]] = ...) -> None: ...

class FileProgress(_message.Message):
    __slots__ = ("path", "done_bytes", "total_bytes", "state")
    PATH_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    path: str
    done_bytes: int
    total_bytes: int
    state: FileState
    def __init__(self, path: _Optional[str] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ..., state: _Optional[_Union[FileState, str]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("name", "remove")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REMOVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    remove: bool
    def __init__(self, name: _Optional[str] = ..., remove: _Optional[bool] = ...) -> None: ...

class ReleaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("models", "quota_bytes", "used_bytes")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    QUOTA_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[StoredModel]
    quota_bytes: int
    used_bytes: int
    def __init__(self, models: _Optional[_Iterable[_Union[StoredModel, _Mapping]]] = ..., quota_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class StoredModel(_message.Message):
    __slots__ = ("name", "uri", "path", "size_bytes", "is_held")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IS_HELD_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    path: str
    size_bytes: int
    is_held: bool
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., is_held: _Optional[bool] = ...) -> None: ...
