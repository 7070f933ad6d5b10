"""One path under every protocol."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeAlias, cast

from servery_sdk.documents import Document, DocumentModel, Reply
from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.serving import DecoupledModel, Overrides

from servery_predictor.batching import calls
from servery_predictor.batching.tickets import Ability, Outcome, Ticket
from servery_predictor.errors import ModelNotReady, QueueFull, TooLate
from servery_predictor.extensions.offered import Offered
from servery_predictor.metrics import Metrics
from servery_predictor.overriding import NotAllowed
from servery_predictor.repository import Repository, Users


class Changes(Protocol):
    """Who loads and unloads models: the repository, or all workers' repositories together."""

    async def load(self, name: str, overrides: Overrides | None = None) -> None: ...

    async def unload(self, name: str) -> None: ...


class DataPlane:
    """Answers inference requests, whatever they came as.

    Attributes:
        changes: What a client's wish to load or unload goes to.
    """

    def __init__(
        self, repository: Repository, metrics: Metrics, offered: Offered, *, allows_overrides: bool = False
    ) -> None:
        self.repository = repository
        self.metrics = metrics
        self.offered = offered
        self._tracing = offered.ledger.tracing
        self.changes: Changes = repository
        self._allows_overrides = allows_overrides
        self.draining = False

    async def load(self, name: str, overrides: Overrides | None) -> None:
        """Load a model as a client wishes.

        Raises:
            NotAllowed: With something of the client's, which this server does not take.
            UnknownModel: No such model.
            LoadError: It cannot be served.
        """
        if overrides is not None and not self._allows_overrides:
            raise NotAllowed(
                f"model {name!r} is loaded as it lies in its repository; a server that is started with "
                "--allow-load-overrides takes a configuration and files from clients"
            )
        await self.changes.load(name, overrides)

    @property
    def ready(self) -> bool:
        """Whether every model that was not unloaded answers, one at least, and the server is not going away.

        Of many models, which come and go, none makes the others wait.
        """
        if self.repository.holds_many:
            return not self.draining
        states = {entry.state for entry in self.repository.entries()}
        is_loaded = ModelState.LOADED in states <= {ModelState.LOADED, ModelState.PENDING}
        return not self.draining and is_loaded and self.live

    @property
    def live(self) -> bool:
        """Whether a new process would do no better: what a model's engine lost when it died, only loading brings back."""
        return self.repository.failure is None

    async def infer(self, request: InferRequest, *, protocol: str, explain: bool = False) -> InferResponse:
        """Return the model's answer with the outputs that were asked for.

        Args:
            explain: Ask not for the answer but for what it comes from.

        Raises:
            ServeryError: With the code that each wire has a number for.
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def settle(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        call = Told(self, request, protocol, settle)
        self.submit(call, explain=explain)
        try:
            outcome = await answer
        except asyncio.CancelledError:
            call.cancel()
            raise
        if isinstance(outcome, ServeryError):
            raise outcome
        return outcome

    async def reply(self, document: Document, *, version: str | None = None) -> Reply:
        """Return the answer of a model that takes documents; it is asked at once, beside other requests.

        Raises:
            ServeryError: With the code that each wire has a number for.
        """
        started, code = time.perf_counter(), "OK"
        try:
            return await self._reply(document, version)
        except ServeryError as failure:
            code = failure.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            self.metrics.answered(document.model, document.wire, code, time.perf_counter() - started)

    async def _reply(self, document: Document, version: str | None) -> Reply:
        entry = self.repository.ready(document.model, version)
        # Whoever says so is one; a check against a protocol would take microseconds.
        model, users, most = cast("DocumentModel", entry.model), entry.users, self.repository.max_queue_requests
        if not entry.takes_documents:
            # It was another kind of model a moment ago.
            raise ModelNotReady(f"Model with name {document.model} was loaded anew; try again")
        if users.count >= most:
            words = f"model {document.model!r}: {users.count} requests are being answered; try again"
            raise QueueFull(words, retry_after_seconds=1.0)
        seconds = self.repository.timeout_seconds
        try:
            with users:
                async with asyncio.timeout(seconds) as deadline:
                    reply = await model.reply(document)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TooLate(f"model {document.model!r} did not answer in {seconds:g} s") from error
        if isinstance(reply.body, bytes):
            return reply
        return replace(reply, body=_kept(reply.body, users))

    def submit(self, call: Call, *, explain: bool = False) -> None:
        """Tell ``call`` once what ``infer`` returns or raises, before this returns where nothing need be waited for.

        Args:
            explain: Ask not for the answer but for what it comes from.
        """
        request = call.request
        trace = self.offered.tracer.begin(request, call.came) if self._tracing[0] else None
        if trace is not None:
            call.traced = partial(self.offered.tracer.end, trace)
        try:
            batcher = self.repository.batcher(request.model, request.version)
            if explain:
                call.ability = self.repository.explainer(request.model, request.version)
            batcher.enqueue(call)
            if trace is not None:
                self.offered.tracer.follow(call, trace)
        except ServeryError as failure:
            call.fail(failure)

    def stream(self, request: InferRequest, *, protocol: str) -> Parts:
        """Ask for all responses to a request, which most models answer with one."""
        return Parts(self, request, protocol)


class Call(Ticket):
    """One request on its way through the plane, which is counted: with its batch, or alone where no batch answers it.

    Attributes:
        traced: Called with the outcome, before it is told.
    """

    __slots__ = ("_metrics", "traced")

    def __init__(self, plane: DataPlane, request: InferRequest, protocol: str, ability: Ability | None = None) -> None:
        # By name: to find it by ``super`` takes longer than what it does.
        Ticket.__init__(self, request, protocol, ability)
        self._metrics = plane.metrics
        self.traced: Callable[[Outcome], None] | None = None

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, unless nobody does any more."""
        if not self.is_over:
            self.is_over = True
            if self.traced is not None:
                self.traced(outcome)
            self.tell(outcome)

    def fail(self, failure: ServeryError) -> None:
        """Count the failure and tell who asked."""
        if not self.is_over:
            self._count(failure.code)
            self.finish(failure)

    def cancel(self, msg: object = None) -> bool:
        """Give up: nobody waits any more. Returns whether anybody did."""
        if self.is_over:
            return False
        self._count("CANCELLED")
        return super().cancel(msg)

    def _count(self, code: str) -> None:
        self._metrics.answered(self.request.model, self.protocol, code, time.perf_counter() - self.came)


class Told(Call):
    """A call whose outcome a function is told."""

    __slots__ = ("_done",)

    def __init__(
        self,
        plane: DataPlane,
        request: InferRequest,
        protocol: str,
        done: Callable[[Outcome], None],
        ability: Ability | None = None,
    ) -> None:
        super().__init__(plane, request, protocol, ability)
        self._done = done

    def tell(self, outcome: Outcome) -> None:
        done = self._done
        # It may know the call, too: a circle would keep each request's tensors until the garbage collector comes,
        # which is seldom, and can be gigabytes.
        self._done = _nobody
        done(outcome)

    def cancel(self, msg: object = None) -> bool:
        self._done = _nobody
        return super().cancel(msg)


async def _kept(pieces: AsyncGenerator[bytes, None], users: Users) -> AsyncGenerator[bytes, None]:
    """Yield ``pieces``, and be counted as long as they come."""
    with users:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece


def _nobody(outcome: Outcome) -> None:
    """Take no notice."""


Part: TypeAlias = tuple[Outcome | None, bool]
"""A response, or what is wrong, and whether it is the last; None where only that is told."""


class Parts:
    """The responses to one request, in order, each as soon as it is there; asked for when this is made.

    Iterate once, and ``cancel`` when no more are wanted.
    """

    def __init__(self, plane: DataPlane, request: InferRequest, protocol: str) -> None:
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Part] = asyncio.Queue()
        try:
            model = plane.repository.decoupled(request.model, request.version)
            batcher = plane.repository.batcher(request.model, request.version)
        except ServeryError:
            # To be told, and counted, like that of any other request.
            model = None
        if model is None:
            self._call = Told(plane, request, protocol, self._only)
            plane.submit(self._call)
            return
        # What it asks for is taken from each response, not from the empty one that stands for them all.
        whole, answer = replace(request, outputs=()), partial(self._answer, model)
        self._call = Told(plane, whole, protocol, self._over, answer)
        try:
            batcher.enqueue(self._call)
        except ServeryError as failure:
            self._call.fail(failure)

    def _only(self, outcome: Outcome) -> None:
        self._parts.put_nowait((outcome, True))

    def _answer(self, model: DecoupledModel, _: InferRequest) -> InferResponse:
        model.stream(self._request, lambda answer, is_last: self._tell((answer, is_last)))
        return InferResponse(model=self._request.model, outputs=())

    def _tell(self, part: Part) -> None:
        self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    def _over(self, outcome: Outcome) -> None:
        self._parts.put_nowait((outcome if isinstance(outcome, ServeryError) else None, True))

    async def __aiter__(self) -> AsyncIterator[Part]:
        is_last = False
        while not is_last:
            outcome, is_last = await self._parts.get()
            if isinstance(outcome, InferResponse):
                outcome = calls.wanted(outcome, self._request)
            yield outcome, is_last

    def cancel(self) -> None:
        """Want no more."""
        self._call.cancel()
