"""A predictor that is asked over REST, in v1 or v2, by a component that stands beside it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from types import TracebackType
from typing import Self
from urllib.parse import quote

import numpy as np
import orjson
from numpy.typing import NDArray

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json
from servery_sdk.model import Protocol
from servery_sdk.protocol import Datatype, InferRequest, RequestError, Tensor, v1, v2
from servery_sdk.serving import InputError

_OK, _CLIENT_ERROR, _SERVER_ERROR = 200, 400, 500


class NoAnswer(ServeryError):
    """The predictor cannot be reached, or failed."""

    code = ErrorCode.UNAVAILABLE


class LateAnswer(ServeryError):
    """The predictor did not answer in time."""

    code = ErrorCode.DEADLINE_EXCEEDED


class RemotePredictor:
    """A model on a predictor, over one connection; for one thread, though any may ``close`` it.

    Args:
        host: ``name`` or ``name:port``.
        model: Its name there.
        protocol: What it is asked in: ``V1`` or ``V2``.
        headers: Sent with each request.
        timeout_seconds: For each request.
    """

    def __init__(
        self,
        host: str,
        model: str,
        *,
        protocol: Protocol = Protocol.V1,
        headers: Mapping[str, str] | None = None,
        use_ssl: bool = False,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.model = model
        self._host = host
        self._protocol = protocol
        self._paths = {
            Protocol.V1: f"/v1/models/{quote(model, safe='')}:predict",
            Protocol.V2: f"/v2/models/{quote(model, safe='')}/infer",
        }
        self._described = f"/v2/models/{quote(model, safe='')}"
        self._input: tuple[str, Datatype] | None = None
        self._headers = {**(headers or {}), "content-type": "application/json"}
        self._timeout_seconds = timeout_seconds
        made = http.client.HTTPSConnection if use_ssl else http.client.HTTPConnection
        self._connection = made(host, timeout=timeout_seconds)
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ask no more: the next question gets NoAnswer."""
        self._is_closed = True
        self._connection.close()

    def post(
        self, body: bytes, *, wire: Protocol | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers (in lower case) of the answer to one body, whatever it says.

        Args:
            wire: What the body is in; None for the predictor's protocol.
            headers: Of this request alone.

        Raises:
            NoAnswer: There is none.
            LateAnswer: Not in time.
        """
        return self._sent("POST", self._paths[wire or self._protocol], body, headers)

    def _sent(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        try:
            return self._asked(method, path, body, {**self._headers, **(headers or {})}, again=True)
        except TimeoutError as error:
            raise LateAnswer(f"predictor {self._host}: no answer within {self._timeout_seconds:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"predictor {self._host}: {type(error).__name__}: {error}") from error

    def _asked(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, again: bool
    ) -> tuple[int, bytes, Mapping[str, str]]:
        if self._is_closed:
            raise NoAnswer(f"predictor {self._host}: nobody waits for the answer any more")
        is_used = self._connection.sock is not None
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        except (ConnectionError, http.client.BadStatusLine):
            self._connection.close()
            # A server may end a connection between two requests, and a prediction may be asked for twice.
            if is_used and again:
                return self._asked(method, path, body, headers, again=False)
            raise

    def predictions(self, instances: Json) -> list[Json]:
        """Return a prediction for each of ``instances``, JSON or an array ``[rows, *item]``.

        Raises:
            InputError: The predictor takes them for wrong; in its words.
            NoAnswer: It cannot be reached, fails, or says something else than a list.
            LateAnswer: Not in time.
        """
        if self._protocol is Protocol.V2:
            return self._outputs(instances)
        answer = self._told(orjson.dumps({"instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY))
        try:
            found = orjson.loads(answer)["predictions"]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, list):
            raise NoAnswer(f'predictor {self._host}: the answer has no list "predictions": {answer[:200]!r}')
        return found

    def _told(self, body: bytes) -> bytes:
        status, answer, _ = self.post(body)
        self._check(status, answer)
        return answer

    def _check(self, status: int, answer: bytes) -> None:
        if status != _OK:
            words = f"predictor {self._host}: HTTP {status}: {answer.decode(errors='replace')}"
            raise InputError(words) if _CLIENT_ERROR <= status < _SERVER_ERROR else NoAnswer(words)

    def _outputs(self, instances: Json) -> list[Json]:
        """Return the rows of the first output of a v2 predictor, whose first input the instances are."""
        if self._input is None:
            self._input = self._first_input()
        name, datatype = self._input
        sent = v1.tensor(name, np.asarray(instances).tolist())
        if datatype is not Datatype.BYTES and sent.datatype is not Datatype.BYTES:
            sent = Tensor(name=name, data=sent.data.astype(datatype.dtype), datatype=datatype)
        answer = self._told(v2.encode_request(InferRequest(model=self.model, inputs=(sent,))).body)
        try:
            outputs = v2.decode_response(answer).outputs
        except RequestError:
            outputs = ()
        if not outputs or not outputs[0].data.ndim:
            raise NoAnswer(f'predictor {self._host}: the answer has no "outputs" with rows: {answer[:200]!r}')
        found: list[Json] = outputs[0].data.tolist()
        return found

    def _first_input(self) -> tuple[str, Datatype]:
        """Return name and type of the model's first input; of one that does not say, what numbers are."""
        status, answer, _ = self._sent("GET", self._described)
        self._check(status, answer)
        try:
            first = orjson.loads(answer)["inputs"][0]
            datatype = Datatype.named(str(first["datatype"]))
            return str(first["name"]), datatype or Datatype.FP64
        except (ValueError, KeyError, TypeError, IndexError):
            return v1.INPUT, Datatype.FP64

    def scores(self, rows: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return predictions that are numbers: ``[rows]`` or ``[rows, scores]`` for ``[rows, *item]``.

        Raises:
            InputError: They are not, or as for ``predictions``.
            NoAnswer: There are not as many as rows, or as for ``predictions``.
            LateAnswer: Not in time.
        """
        found = self.predictions(np.ascontiguousarray(rows))
        try:
            made = np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"predictor {self._host}: its predictions are no numbers, such as {found[0]!r}") from error
        if len(made) != len(rows):
            raise NoAnswer(f"predictor {self._host}: {len(made)} predictions for {len(rows)} rows")
        return made
