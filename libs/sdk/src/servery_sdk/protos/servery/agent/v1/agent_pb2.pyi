from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AgentStats(_message.Message):
    __slots__ = ("is_draining", "requests", "calls", "inflight", "queue", "connections", "batches", "payload_log", "models")
    class ModelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    IS_DRAINING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    INFLIGHT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_LOG_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    is_draining: bool
    requests: Exchanges
    calls: Exchanges
    inflight: int
    queue: int
    connections: int
    batches: Batches
    payload_log: PayloadLog
    models: _containers.ScalarMap[str, int]
    def __init__(self, is_draining: _Optional[bool] = ..., requests: _Optional[_Union[Exchanges, _Mapping]] = ..., calls: _Optional[_Union[Exchanges, _Mapping]] = ..., inflight: _Optional[int] = ..., queue: _Optional[int] = ..., connections: _Optional[int] = ..., batches: _Optional[_Union[Batches, _Mapping]] = ..., payload_log: _Optional[_Union[PayloadLog, _Mapping]] = ..., models: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Exchanges(_message.Message):
    __slots__ = ("by_code", "seconds")
    class ByCodeEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BY_CODE_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    by_code: _containers.ScalarMap[str, int]
    seconds: Histogram
    def __init__(self, by_code: _Optional[_Mapping[str, int]] = ..., seconds: _Optional[_Union[Histogram, _Mapping]] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("bounds", "counts", "sum")
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum: float
    def __init__(self, bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sum: _Optional[float] = ...) -> None: ...

class Batches(_message.Message):
    __slots__ = ("requests", "rows", "wait_seconds", "retries")
    class RetriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    requests: Histogram
    rows: Histogram
    wait_seconds: Histogram
    retries: _containers.ScalarMap[str, int]
    def __init__(self, requests: _Optional[_Union[Histogram, _Mapping]] = ..., rows: _Optional[_Union[Histogram, _Mapping]] = ..., wait_seconds: _Optional[_Union[Histogram, _Mapping]] = ..., retries: _Optional[_Mapping[str, int]] = ...) -> None: ...

class PayloadLog(_message.Message):
    __slots__ = ("is_sink_up", "sink_failures", "accepted", "delivered", "waiting", "dead", "dropped", "queue_bytes", "spool_bytes")
    class DroppedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    IS_SINK_UP_FIELD_NUMBER: _ClassVar[int]
    SINK_FAILURES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    is_sink_up: bool
    sink_failures: int
    accepted: int
    delivered: int
    waiting: int
    dead: int
    dropped: _containers.ScalarMap[str, int]
    queue_bytes: int
    spool_bytes: int
    def __init__(self, is_sink_up: _Optional[bool] = ..., sink_failures: _Optional[int] = ..., accepted: _Optional[int] = ..., delivered: _Optional[int] = ..., waiting: _Optional[int] = ..., dead: _Optional[int] = ..., dropped: _Optional[_Mapping[str, int]] = ..., queue_bytes: _Optional[int] = ..., spool_bytes: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("quiet_seconds", "most_seconds")
    QUIET_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MOST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    quiet_seconds: float
    most_seconds: float
    def __init__(self, quiet_seconds: _Optional[float] = ..., most_seconds: _Optional[float] = ...) -> None: ...

class DrainReply(_message.Message):
    __slots__ = ("left",)
    LEFT_FIELD_NUMBER: _ClassVar[int]
    left: int
    def __init__(self, left: _Optional[int] = ...) -> None: ...
