"""Traces of single requests: when each came, waited, was computed and answered, in Triton's JSON.

Settings and what was counted are those of all workers. A file is whole JSON at any time: a trace is added where the last
one ended, and no shutdown is needed to close it.

Source: Triton's trace extension; its user guide, "Triton Server Trace"; its src/tracer.cc for the words of errors.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, Tensor
from servery_sdk.protocol.elements import as_text

from servery_predictor.batching.calls import Called
from servery_predictor.batching.tickets import Outcome, Ticket
from servery_predictor.extensions.ledger import Document, Ledger

logger = logging.getLogger(__name__)

OFF, TIMESTAMPS, TENSORS = "OFF", "TIMESTAMPS", "TENSORS"
Settings = Mapping[str, list[str]]
"""Every value as texts; only the level has several."""

_DEFAULTS: Settings = {"trace_level": [OFF], "trace_rate": ["1000"], "trace_count": ["-1"], "log_frequency": ["0"]}
_RANGES = {"trace_rate": (0, 2**32 - 1), "trace_count": (-1, 2**31 - 1), "log_frequency": (0, 2**32 - 1)}
_EVERYTHING = ""
"""The scope of settings that no model has changed."""


class WrongTraceSetting(ServeryError):
    """A setting has a value that it cannot have."""

    code = ErrorCode.INVALID_ARGUMENT


class FixedTraceSetting(ServeryError):
    """A setting that is not a client's to change."""

    code = ErrorCode.UNIMPLEMENTED


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What becomes of a model's requests.

    Attributes:
        scope: Whose settings they are: the model's, or the server's.
        number: Of these settings; others count anew.
        rate: One of so many is traced.
        file_traces: After so many a new file begins; 0 where one takes all.
    """

    scope: str
    number: str
    levels: frozenset[str]
    rate: int
    is_counted: bool
    file_traces: int


@dataclass(slots=True, kw_only=True)
class Trace:
    """One request's."""

    id: int
    plan: _Plan
    request: InferRequest
    lines: list[dict[str, Any]] = field(default_factory=list)

    def stamp(self, name: str, seconds: float) -> None:
        """Note when something was, of ``time.perf_counter``."""
        if TIMESTAMPS in self.plan.levels:
            self.lines.append({"id": self.id, "timestamps": [{"name": name, "ns": round(seconds * 1e9)}]})

    def show(self, activity: str, tensors: Sequence[Tensor]) -> None:
        """Note what went in or came out."""
        if TENSORS in self.plan.levels:
            self.lines += [
                {
                    "id": self.id,
                    "activity": activity,
                    "tensor": {
                        "name": tensor.name,
                        "data": ",".join(map(as_text, tensor.data.ravel().tolist())),
                        "shape": ",".join(map(str, tensor.data.shape)),
                        "dtype": tensor.datatype.value,
                    },
                }
                for tensor in tensors
            ]


class Tracer:
    """Chooses requests, follows them and writes what they did.

    Args:
        file: Where traces go; None where nothing can be traced.
    """

    def __init__(self, ledger: Ledger, file: Path | None) -> None:
        self._ledger = ledger
        self._file = file
        self._plans: dict[str, _Plan | None] = {}
        self._version = -1
        self._seen: dict[str, int] = {}
        self._followed: dict[Ticket, Trace] = {}

    # Settings.

    def settings(self, model: str = _EVERYTHING) -> Settings:
        """Return what holds for a model, or for all that have none of their own; ``trace_count`` are those left."""
        document = self._ledger.read().get("traces", {})
        return self._told(document, model)

    def _told(self, document: Document, model: str) -> Settings:
        scopes = document.get("settings", {})
        found = {**_DEFAULTS, **scopes.get(_EVERYTHING, {}), **scopes.get(model, {})}
        state = document.get("states", {}).get(model if model in scopes else _EVERYTHING, {})
        if "left" in state:
            found["trace_count"] = [str(state["left"])]
        return {**found, "trace_file": [str(self._file or "")], "trace_mode": ["triton"]}

    def change(self, changes: Mapping[str, list[str] | None], model: str = _EVERYTHING) -> None:
        """Change settings of a model, or of all; None forgets what was set. Counts begin anew.

        Raises:
            WrongTraceSetting: A value cannot be.
            FixedTraceSetting: The file is not a client's to choose: it lies on the server's disk.
        """
        checked = {name: value if value is None else _checked(name, value) for name, value in changes.items()}
        with self._ledger.change() as document:
            traces = document.setdefault("traces", {})
            scopes = traces.setdefault("settings", {})
            settled = {**scopes.get(model, {}), **checked}
            settled = {name: value for name, value in settled.items() if value is not None}
            if settled:
                scopes[model] = settled
            else:
                scopes.pop(model, None)
            traces["number"] = traces.get("number", 0) + 1
            # What others take over from the server's settings begins anew as well.
            for scope in (scopes.keys() | {_EVERYTHING}) if model == _EVERYTHING else {model}:
                traces.setdefault("states", {}).pop(scope, None)
                found = self._told(traces, scope)
                self._check(found)
                if scope in scopes or scope == _EVERYTHING:
                    count = int(found["trace_count"][0])
                    traces["states"][scope] = {"number": traces["number"], **({"left": count} if count > 0 else {})}
            self._ledger.tracing[0] = self._any(traces)

    def _check(self, found: Settings) -> None:
        if found["trace_level"] == [OFF]:
            return
        wrong = (
            "sample rate must be non-zero"
            if found["trace_rate"] == ["0"]
            else "trace file name is not given"
            if self._file is None
            else ""
        )
        if wrong:
            raise WrongTraceSetting(f"Attempting to set invalid trace setting :{wrong}")

    def _any(self, traces: Document) -> bool:
        return any(self._plan(traces, scope) is not None for scope in (_EVERYTHING, *traces.get("settings", {})))

    def _plan(self, traces: Document, model: str) -> _Plan | None:
        found = self._told(traces, model)
        scope = model if model in traces.get("settings", {}) else _EVERYTHING
        state = traces.get("states", {}).get(scope, {})
        if found["trace_level"] == [OFF] or found["trace_count"] == ["0"]:
            return None
        return _Plan(
            scope=scope,
            number=f"{state['number']} {scope}",
            levels=frozenset(found["trace_level"]),
            rate=int(found["trace_rate"][0]),
            is_counted="left" in state,
            file_traces=int(found["log_frequency"][0]),
        )

    # Requests.

    def begin(self, request: InferRequest, started: float) -> Trace | None:
        """Return the trace of a request that is chosen; most are not."""
        if self._version != self._ledger.version:
            self._version = self._ledger.version
            self._plans = {}
        if request.model not in self._plans:
            self._plans[request.model] = self._plan(self._ledger.read().get("traces", {}), request.model)
        plan = self._plans[request.model]
        if plan is None:
            return None
        self._seen[plan.number] = seen = self._seen.get(plan.number, 0) + 1
        if seen % plan.rate:
            return None
        number = self._next(plan)
        if number is None:
            return None
        trace = Trace(id=number, plan=plan, request=request)
        told: dict[str, Any] = {"id": number, "model_name": request.model, "model_version": _version(request.version)}
        trace.lines.append({**told, **({"request_id": request.id} if request.id else {})})
        trace.stamp("REQUEST_START", started)
        trace.show("TENSOR_QUEUE_INPUT", request.inputs)
        return trace

    def _next(self, plan: _Plan) -> int | None:
        """Return the number of the next trace, None where there were enough."""
        with self._ledger.change(silently=True) as document:
            traces = document["traces"]
            state = traces.get("states", {}).get(plan.scope, {})
            if plan.is_counted:
                left = state.get("left", 0) if f"{state.get('number')} {plan.scope}" == plan.number else 0
                if left <= 0:
                    return None
                state["left"] = left - 1
                if left == 1:
                    self._ledger.tracing[0] = self._any(traces)
            traces["last"] = number = int(traces.get("last", 0)) + 1
        return number

    def follow(self, ticket: Ticket, trace: Trace) -> None:
        """Note what becomes of a request in its queue."""
        # Nobody tells of those that were given up.
        self._followed = {known: one for known, one in self._followed.items() if not known.is_over}
        self._followed[ticket] = trace

    def called(self, tickets: Sequence[Ticket], called: Called) -> None:
        """Note when a call was, for those of its requests that are traced."""
        if not self._followed:
            return
        for ticket in tickets:
            trace = self._followed.pop(ticket, None)
            if trace is not None:
                ends = called.started + called.seconds
                trace.stamp("QUEUE_START", ticket.came)
                # Putting requests together and taking answers apart are parts of the call, and were not timed.
                trace.stamp("COMPUTE_START", called.started)
                trace.stamp("COMPUTE_INPUT_END", called.started)
                trace.stamp("COMPUTE_OUTPUT_START", ends)
                trace.stamp("COMPUTE_END", ends)

    def end(self, trace: Trace, outcome: Outcome) -> None:
        """Write what is known of a request that was answered."""
        if isinstance(outcome, InferResponse):
            trace.show("TENSOR_BACKEND_OUTPUT", outcome.outputs)
        now = time.perf_counter()
        trace.stamp("INFER_RESPONSE_COMPLETE", now)
        trace.stamp("REQUEST_END", now)
        text = b",".join(json.dumps(line, separators=(",", ":")).encode() for line in trace.lines)
        try:
            with self._ledger.change(silently=True) as document:
                self._write(document["traces"], trace.plan, text)
        except OSError:
            # The request is answered all the same.
            logger.exception("trace not written", extra={"file": str(self._file)})

    def _write(self, traces: Document, plan: _Plan, text: bytes) -> None:
        assert self._file is not None
        if not plan.file_traces:
            _append(self._file, text, is_new=not traces.get("begun"))
            traces["begun"] = True
            return
        files = traces.setdefault("files", {})
        current = files.pop(plan.number, None) or {"index": traces.get("index", 0), "traces": 0}
        if not current["traces"]:
            traces["index"] = current["index"] + 1
        _append(Path(f"{self._file}.{current['index']}"), text, is_new=not current["traces"])
        current["traces"] += 1
        if current["traces"] < plan.file_traces:
            files[plan.number] = current


def _append(file: Path, text: bytes, *, is_new: bool) -> None:
    with file.open("wb" if is_new or not file.exists() else "r+b") as stream:
        if stream.seek(0, os.SEEK_END):
            # In the place of the bracket that closes it.
            stream.seek(-1, os.SEEK_END)
            stream.write(b"," + text + b"]")
        else:
            stream.write(b"[" + text + b"]")


def _checked(name: str, value: list[str]) -> list[str]:
    if name == "trace_file":
        raise FixedTraceSetting("trace file location can not be updated through network protocol")
    if name == "trace_level":
        for level in value:
            if level not in (OFF, TIMESTAMPS, TENSORS):
                raise WrongTraceSetting(
                    f"Unable to parse 'trace_level', got: {level}; one of {OFF}, {TENSORS}, {TIMESTAMPS}"
                )
        if not value or (OFF in value and len(value) > 1):
            raise WrongTraceSetting(f"Unable to parse 'trace_level': send {OFF} alone, or levels without it")
        return sorted(set(value), reverse=True)
    if name not in _RANGES:
        raise WrongTraceSetting(f"unknown trace setting {name!r}; there are: {', '.join(sorted(_DEFAULTS))}")
    low, high = _RANGES[name]
    try:
        (text,) = value
        number = int(text)
    except ValueError as error:
        raise WrongTraceSetting(f"Unable to parse '{name}', got: {', '.join(value)}") from error
    if not low <= number <= high:
        raise WrongTraceSetting(f"Unable to parse '{name}', value is out of range [ {low}, {high} ], got: {text}")
    return [str(number)]


def _version(version: str | None) -> int:
    # Triton's own word for a request that left it open.
    return int(version) if version is not None and version.isdigit() else -1
