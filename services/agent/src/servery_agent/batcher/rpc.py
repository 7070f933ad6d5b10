"""gRPC: calls of ``ModelInfer``, and how a batch of them is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from servery_http.http2.headers import Fields
from servery_http.rpc.calls import Answer, Done, Failure, Handler, Outcome, Status, message_of
from servery_http.rpc.client import block_of

from servery_agent.batcher import tensors
from servery_agent.batcher.fields import that_matter
from servery_agent.batcher.gated import GatedChannel
from servery_agent.batcher.lanes import FAILED, WHOLE, WRONG, Apart, Asked, GiveUp, Lanes
from servery_agent.batcher.rest import INFER

_OURS = frozenset({b"te", b"content-type", b"grpc-encoding", b"grpc-accept-encoding", b"content-length"})


_FAILED = frozenset({Status.INTERNAL, Status.UNKNOWN})
"""What a model that raises is, and so may be of one call. Source: grpcio and KServe's interceptors."""
_OF_SERVER = _FAILED | {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.DATA_LOSS}
_OF_ONE_ANSWER = frozenset({b"x-request-id", b"ce-id"})


class RpcAsked(Asked):
    """A call and who waits for its answer.

    Attributes:
        block: Its head, as it goes on.
        batch_block: The head of a batch that it goes with.
    """

    __slots__ = ("batch_block", "block", "done", "message", "part")

    def __init__(self, key: Hashable, rows: int, message: bytes, done: Done, block: bytes, batch_block: bytes) -> None:
        super().__init__(key, rows)
        self.message = message
        self.done = done
        self.block = block
        self.batch_block = batch_block
        self.part: tensors.Part | None = None


class Rpc:
    """``ModelInfer`` of any model."""

    def __init__(self, channel: GatedChannel) -> None:
        self._channel = channel

    def alone(self, asked: RpcAsked, done: Callable[[Outcome], None]) -> GiveUp:
        """Send it as it came."""
        return self._channel.ask(asked.block, asked.message, done)

    def together(self, asked: Sequence[RpcAsked], done: Callable[[Sequence[Outcome] | Apart], None]) -> GiveUp:
        """Send all tensors as those of one request, their contents as they came."""
        parts = [one.part for one in asked if one.part is not None]
        merged = tensors.merged(parts)

        def on_done(outcome: Outcome) -> None:
            if not isinstance(outcome, Failure):
                answers = tensors.from_grpc(message_of(outcome), merged.offsets, parts)
                done(Apart(WHOLE) if answers is None else _with_metadata(answers, outcome))
            elif outcome.status is Status.INVALID_ARGUMENT:
                done(Apart(WRONG))
            elif outcome.status in _FAILED:
                done(Apart(FAILED))
            else:
                done([Failure(outcome.status, str(outcome), _shared(outcome.trailers))] * len(asked))

        message = tensors.grpc_message(merged.request, raw=parts[0].is_raw)
        return self._channel.ask(asked[0].batch_block, message, on_done)

    def answer(self, asked: RpcAsked, outcome: Outcome) -> None:
        """Answer the caller, who may hold what is asked: neither should wait for the collector."""
        done, asked.done = asked.done, _nobody
        done(outcome)

    def is_failure(self, outcome: Outcome) -> bool:
        """Return whether the server failed, whatever it was asked."""
        return isinstance(outcome, Failure) and outcome.status in _OF_SERVER

    def late(self, seconds: float) -> Outcome:
        """Return that it is too late."""
        return Failure(Status.DEADLINE_EXCEEDED, f"the predictor did not answer the batch within {seconds:g} s")

    def full(self, most: int) -> Outcome:
        """Return that too many wait."""
        return Failure(Status.RESOURCE_EXHAUSTED, f"{most} requests wait for the predictor, which is the limit")


def _with_metadata(messages: Sequence[bytes], answer: bytes | Answer) -> Sequence[bytes | Answer]:
    if not isinstance(answer, Answer):
        return messages
    head, trailers = _shared(answer.head), _shared(answer.trailers)
    return [Answer(message, head, trailers) for message in messages]


def _shared(metadata: Fields) -> Fields:
    return tuple([field for field in metadata if field[0] not in _OF_ONE_ANSWER])


def _nobody(_outcome: Outcome) -> None:
    pass


class RpcCalls:
    """Answers ``ModelInfer``, by the metadata that a call has."""

    def __init__(self, lanes: Lanes[RpcAsked, Outcome]) -> None:
        self._lanes = lanes

    def handler_of(self, fields: Fields) -> Handler:
        """Return the handler of calls with such a head."""
        kept = that_matter(fields)
        own = tuple(one for one in fields if one[0][:1] != b":" and one[0] not in _OURS)
        block, batch_block = block_of(INFER, own), block_of(INFER, kept)
        lanes = self._lanes

        def infer(message: bytes, done: Done) -> Callable[[], None]:
            model, version, part = tensors.of_grpc(message)
            if part is None:
                asked = RpcAsked(None, 1, message, done, block, batch_block)
            else:
                asked = RpcAsked((part.key, kept), part.rows, message, done, block, batch_block)
                asked.part = part
            lanes.submit((model, version), asked)
            return asked.give_up

        return infer
