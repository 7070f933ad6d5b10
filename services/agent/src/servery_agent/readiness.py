"""Whether the component behind is ready: a Kubernetes probe, asked when somebody asks us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from servery_http.address import Address
from servery_http.client import Client
from servery_sdk.errors import ErrorCode, ServeryError, Transient

logger = logging.getLogger(__name__)


class WrongProbe(ServeryError):
    """``SERVING_READINESS_PROBE`` is no probe."""

    code = ErrorCode.INVALID_ARGUMENT


class _Words(BaseModel):
    """A part of a probe; fields that Kubernetes has and we do not need are ignored, as its own decoder does."""

    model_config = ConfigDict(alias_generator=AliasGenerator(to_camel), frozen=True, extra="ignore")


class HttpHeader(_Words):
    """Of an HTTP probe."""

    name: str
    value: str


class HttpGet(_Words):
    """Ready where the answer is 200 to 399."""

    path: str = "/"
    port: int = 0
    host: str = ""
    scheme: Literal["HTTP", "HTTPS", ""] = ""
    http_headers: tuple[HttpHeader, ...] = ()

    async def ask(self, seconds: float, default: Address) -> None:
        """Raise Transient where it is not ready."""
        # As kubelet does it: a probe takes any certificate.
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        scheme = "https" if self.scheme == "HTTPS" else "http"
        url = f"{scheme}://{self.host or default.host}:{self.port or default.port}/{self.path.removeprefix('/')}"
        headers = [(one.name.lower().encode(), one.value.encode()) for one in self.http_headers]
        async with Client(tls=tls) as client:
            answer = await client.request("GET", url, headers=headers, timeout_seconds=seconds)
        if not 200 <= answer.status < 400:
            raise Transient(f"{url} answers {answer.status}")


class TcpSocket(_Words):
    """Ready where the port accepts a connection."""

    port: int = 0
    host: str = ""

    async def ask(self, seconds: float, default: Address) -> None:
        """Raise OSError where it is not ready."""
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(self.host or default.host, self.port or default.port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class Exec(_Words):
    """Ready where the command, run in the agent's own container, ends with 0."""

    command: tuple[str, ...] = Field(min_length=1)

    async def ask(self, seconds: float, default: Address) -> None:
        """Raise Transient where it is not ready."""
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*self.command, stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        if status:
            raise Transient(f"{self.command[0]} ended with {status}")


class Grpc(_Words):
    """Ready where the health service says SERVING."""

    port: int = 0
    service: str = ""

    async def ask(self, seconds: float, default: Address) -> None:
        """Raise Transient or grpc.RpcError where it is not ready."""
        # Here, not above: grpcio takes 20 MB, and few agents are asked for this.
        import grpc
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        async with grpc.aio.insecure_channel(f"{default.host}:{self.port or default.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=self.service), timeout=seconds)
            except grpc.aio.AioRpcError as error:
                raise Transient(f"the health service says {error.code().name}: {error.details()}") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Transient(
                f"the health service says {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)}"
            )


class Probe(_Words):
    """Source: Kubernetes core/v1 ``Probe``. Delays and thresholds are kubelet's, which asks us as often as they say."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    grpc: Grpc | None = None
    timeout_seconds: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _has_one_way(self) -> Probe:
        if len(self.ways) != 1:
            msg = f"a probe has one of exec, grpc, httpGet, tcpSocket; this one has {len(self.ways)}"
            raise ValueError(msg)
        return self

    @property
    def ways(self) -> Sequence[HttpGet | TcpSocket | Exec | Grpc]:
        """How to ask; a probe has one."""
        return [way for way in (self.http_get, self.tcp_socket, self.exec, self.grpc) if way is not None]


def probe_of(text: str) -> Probe:
    """Return the probe that ``text``, JSON, describes.

    Raises:
        WrongProbe: It describes none; says where it is wrong.
    """
    try:
        return Probe.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}".lstrip(": ") for each in error.errors())
        raise WrongProbe(f"SERVING_READINESS_PROBE: {wrong}") from error


class Readiness:
    """Asks the component; who asks while that goes on is told the same.

    Args:
        default: Host and port of a probe that names none.
    """

    def __init__(self, probe: Probe, default: Address) -> None:
        self._ask: Callable[[float, Address], Awaitable[None]] = probe.ways[0].ask
        self._seconds = float(probe.timeout_seconds or 1)
        self._default = default
        self._asking: asyncio.Task[bool] | None = None
        self._was_ready: bool | None = None

    async def __call__(self) -> bool:
        """Return whether the component is ready."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._probe(), name="readiness-probe")
            self._asking.add_done_callback(self._on_done)
        return await asyncio.shield(self._asking)

    def _on_done(self, _task: asyncio.Task[bool]) -> None:
        self._asking = None

    async def _probe(self) -> bool:
        reason = ""
        try:
            await self._ask(self._seconds, self._default)
        except TimeoutError:
            reason = f"no answer within {self._seconds:g} s"
        except (OSError, Transient) as error:
            reason = str(error)
        is_ready = not reason
        if is_ready != self._was_ready:
            self._was_ready = is_ready
            logger.info("component is ready" if is_ready else "component is not ready", extra={"reason": reason})
        return is_ready
