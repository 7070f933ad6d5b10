"""Calls that are answered here, seen as those that are relayed: by the payload log."""

from __future__ import annotations

from collections.abc import Callable

from servery_http.http2.headers import Fields
from servery_http.rpc.calls import PREFIX, Answer, Done, Failure, Handler, Headed, Outcome, message_of, percent_encoded
from servery_http.rpc.watching import CallWatcher, WatchCall

_HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc"))


def watched(headed: Headed, watch: WatchCall) -> Headed:
    """Return ``headed`` with each of its calls seen.

    What a watcher has to say to the server is not said: the call may go with others.
    """

    def handler_of(fields: Fields) -> Handler:
        handler = headed.handler_of(fields)

        def infer(message: bytes, done: Done) -> Callable[[], object] | None:
            watcher = watch(fields)
            return handler(message, done) if watcher is None else _seen(watcher, handler, message, done)

        return infer

    return Headed(handler_of)


def _seen(watcher: CallWatcher, handler: Handler, message: bytes, done: Done) -> Callable[[], None]:
    watcher.on_request_piece(PREFIX.pack(0, len(message)) + message)

    def on_outcome(outcome: Outcome) -> None:
        done(_told(watcher, outcome))

    give_up = handler(message, on_outcome)

    def given_up() -> None:
        watcher.on_end(is_complete=False)
        if give_up is not None:
            give_up()

    return given_up


def _told(watcher: CallWatcher, outcome: Outcome) -> Outcome:
    """Return what the caller hears, after the watcher."""
    if isinstance(outcome, Failure):
        status = (b"grpc-status", b"%d" % outcome.status), (b"grpc-message", percent_encoded(str(outcome)))
        watcher.on_call_head((*_HEAD, *status, *outcome.trailers))
        trailers = (*watcher.fields_to_client, *outcome.trailers)
        watcher.on_end(is_complete=True)
        return Failure(outcome.status, str(outcome), trailers)
    answer = outcome if isinstance(outcome, Answer) else Answer(outcome, (), ())
    message = message_of(answer)
    watcher.on_call_head((*_HEAD, *answer.head))
    watcher.on_answer_piece(PREFIX.pack(0, len(message)) + message)
    head = (*watcher.fields_to_client, *answer.head)
    watcher.on_end(is_complete=True)
    return Answer(message, head, answer.trailers)
