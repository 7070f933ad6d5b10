"""A predictor that is asked over REST, in KServe's v1 words, by a component that stands beside it."""

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
        headers: Sent with each request.
        timeout_seconds: For each request.
    """

    def __init__(
        self,
        host: str,
        model: str,
        *,
        headers: Mapping[str, str] | None = None,
        use_ssl: bool = False,
        timeout_seconds: float = 600.0,
    ) -> None:
        self.model = model
        self._host = host
        self._path = f"/v1/models/{quote(model, safe='')}:predict"
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

    def post(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer to one v1 body, whatever it says.

        Raises:
            NoAnswer: There is none.
            LateAnswer: Not in time.
        """
        try:
            return self._post(body, again=True)
        except TimeoutError as error:
            raise LateAnswer(f"predictor {self._host}: no answer within {self._timeout_seconds:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"predictor {self._host}: {type(error).__name__}: {error}") from error

    def _post(self, body: bytes, *, again: bool) -> tuple[int, bytes]:
        if self._is_closed:
            raise NoAnswer(f"predictor {self._host}: nobody waits for the answer any more")
        is_used = self._connection.sock is not None
        try:
            self._connection.request("POST", self._path, body, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (ConnectionError, http.client.BadStatusLine):
            self._connection.close()
            # A server may end a connection between two requests, and a prediction may be asked for twice.
            if is_used and again:
                return self._post(body, again=False)
            raise

    def predictions(self, instances: Json) -> list[Json]:
        """Return a prediction for each of ``instances``, JSON or an array ``[rows, *item]``.

        Raises:
            InputError: The predictor takes them for wrong; in its words.
            NoAnswer: It cannot be reached, fails, or says something else than a list.
            LateAnswer: Not in time.
        """
        status, answer = self.post(orjson.dumps({"instances": instances}, option=orjson.OPT_SERIALIZE_NUMPY))
        if status != _OK:
            words = f"predictor {self._host}: HTTP {status}: {answer.decode(errors='replace')}"
            raise InputError(words) if _CLIENT_ERROR <= status < _SERVER_ERROR else NoAnswer(words)
        try:
            found = orjson.loads(answer)["predictions"]
        except (ValueError, KeyError, TypeError):
            found = None
        if not isinstance(found, list):
            raise NoAnswer(f'predictor {self._host}: the answer has no list "predictions": {answer[:200]!r}')
        return found

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
