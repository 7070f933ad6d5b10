"""The routes under ``/openai/v1`` and ``/v1``, answered like the other hot ones: a client that hangs up stops its model."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import orjson
from servery_http.messages import Handler, Request, Response, header
from servery_sdk import language
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.language import (
    ChatModel,
    EmbeddingModel,
    GenerativeModel,
    ListeningModel,
    Prompt,
    RankingModel,
    Sampling,
    SeeingModel,
    SpeakingModel,
    TranscribingModel,
)
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol.elements import as_text, objects
from servery_sdk.serving import held

from servery_predictor.dataplane import DataPlane
from servery_predictor.errors import ModelFailed
from servery_predictor.openai_api import answers, audio, errors
from servery_predictor.openai_api.answers import CompletionForm, Events, Form, Head, event
from servery_predictor.openai_api.audio import SpeechRequest, TranscriptionRequest, TranslationRequest, read_form
from servery_predictor.openai_api.chatting import chatting
from servery_predictor.openai_api.generating import Run, in_time
from servery_predictor.openai_api.requests import (
    Body,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    RerankRequest,
    base64_floats,
    read,
)
from servery_predictor.repository import Entry

logger = logging.getLogger(__name__)

PREFIXES = ("/openai/v1", "/v1")
PROTOCOL = "openai"
_EVENT_STREAM = b"text/event-stream; charset=utf-8"
_NO_STORE = ((b"cache-control", b"no-cache"),)
_DONE = b"data: [DONE]\n\n"
AnyBody: TypeAlias = (
    CompletionRequest
    | ChatRequest
    | EmbeddingRequest
    | RerankRequest
    | SpeechRequest
    | TranscriptionRequest
    | TranslationRequest
)
_PATHS: Mapping[str, type[AnyBody]] = {
    "/completions": CompletionRequest,
    "/chat/completions": ChatRequest,
    "/embeddings": EmbeddingRequest,
    "/rerank": RerankRequest,
    "/audio/speech": SpeechRequest,
    "/audio/transcriptions": TranscriptionRequest,
    "/audio/translations": TranslationRequest,
}


class NoSuchAbility(ServeryError):
    """The model is here and does something else."""

    code = ErrorCode.INVALID_ARGUMENT


class OpenAIRoutes:
    """``completions``, ``chat/completions``, ``embeddings``, ``rerank`` and ``audio``."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    def by_path(self) -> Mapping[str, Handler]:
        """Return the handlers of ``POST`` by their paths."""
        handlers = {
            CompletionRequest: self._handler(CompletionRequest, self._complete),
            ChatRequest: self._handler(ChatRequest, self._chat),
            EmbeddingRequest: self._handler(EmbeddingRequest, self._embed),
            RerankRequest: self._handler(RerankRequest, self._rank),
            SpeechRequest: self._handler(SpeechRequest, self._speak),
            TranscriptionRequest: self._handler(TranscriptionRequest, self._transcribe),
            TranslationRequest: self._handler(TranslationRequest, self._transcribe),
        }
        return {path: handlers[kind] for path, kind in self.bodies_by_path().items()}

    @staticmethod
    def bodies_by_path() -> Mapping[str, type[AnyBody]]:
        """Return what each path takes."""
        return {prefix + path: kind for prefix in PREFIXES for path, kind in _PATHS.items()}

    def _handler(self, kind: type[Body], answer: Callable[[Body], Awaitable[Response]]) -> Handler:
        async def handle(request: Request) -> Response:
            model, code = "", "OK"
            try:
                asked = _asked(kind, request)
                # An unknown name is the client's invention and would be a label without bounds.
                model = self._plane.repository.entry(asked.model).name
                return await answer(asked)
            except ServeryError as failure:
                code = failure.code
                return errors.response(failure)
            finally:
                # Embedding and ranking go through the data plane, which counts them itself.
                if issubclass(kind, CompletionRequest | ChatRequest) or code != "OK":
                    self._plane.metrics.requests.labels(model, PROTOCOL, code).inc()

        return handle

    # Texts.

    async def _complete(self, asked: CompletionRequest) -> Response:
        entry, model = self._entry(asked.model)
        if not isinstance(model, GenerativeModel):
            raise NoSuchAbility(f"model {asked.model!r} generates no text")
        if asked.echo and asked.sampling.logprobs is not None:
            raise errors.Refused("echo: goes without logprobs here", param="echo")
        if asked.echo and any(not isinstance(prompt, str) for prompt in asked.prompts):
            raise errors.Refused("echo: needs prompts that are texts", param="echo")
        echoed = [prompt if asked.echo else "" for prompt in asked.prompts for _ in range(asked.choices)]
        return await self._generate(asked, CompletionForm(), entry, model, asked.prompts, echoed)  # type: ignore[arg-type]  # echoed are texts, as was just seen

    async def _chat(self, asked: ChatRequest) -> Response:
        entry, model = self._entry(asked.model)
        if not isinstance(model, GenerativeModel):
            raise NoSuchAbility(f"model {asked.model!r} generates no text")
        if not isinstance(model, ChatModel):
            raise NoSuchAbility(f"model {asked.model!r} has no conversations; ask it for completions")
        if any(message.has_images for message in asked.messages) and not (
            isinstance(model, SeeingModel) and model.sees
        ):
            raise errors.Refused(f"messages: model {asked.model!r} sees no images", param="messages")
        form, sampling = chatting(asked, model)
        messages = [message.for_template() for message in asked.messages]
        prompt = model.chat_prompt(messages, asked.template_options)
        return await self._generate(asked, form, entry, model, (prompt,), [""] * asked.choices, sampling)

    async def _generate(
        self,
        asked: CompletionRequest | ChatRequest,
        form: Form,
        entry: Entry,
        model: GenerativeModel,
        prompts: Sequence[Prompt],
        echoed: Sequence[str],
        sampling: Sampling | None = None,
    ) -> Response:
        run = Run(
            model,
            entry,
            prompts,
            sampling or asked.sampling,
            choices=asked.choices,
            stops=asked.stops,
            is_streamed=asked.stream,
            metrics=self._plane.metrics,
            timeout_seconds=self._plane.repository.timeout_seconds,
        )
        head = Head(id=f"{form.prefix}-{uuid.uuid4().hex}", model=asked.model, created=int(time.time()))
        if asked.stream:
            stream = self._events(run, form, head, echoed, tells_usage=asked.tells_usage)
            return Response(stream=stream, content_type=_EVENT_STREAM, headers=_NO_STORE)
        choices = [
            (before + choice.text, choice.tokens, choice.finish)
            for before, choice in zip(echoed, await _caught(run.answers(), entry), strict=True)
        ]
        taken = answers.usage(run.prompt_tokens, run.completion_tokens)
        return _json(answers.whole(form, head, choices, taken))

    async def _events(
        self, run: Run, form: Form, head: Head, echoed: Sequence[str], *, tells_usage: bool
    ) -> AsyncGenerator[bytes, None]:
        unheard = set(range(len(echoed)))
        events = Events(form, head)
        try:
            async with aclosing(run.pieces()) as pieces:
                async for number, piece in pieces:
                    is_first = number in unheard
                    unheard.discard(number)
                    text = echoed[number] + piece.text if is_first else piece.text
                    told = events.piece(number, text, piece.tokens, piece.finish, is_first=is_first)
                    if told is not None:
                        yield told
            if tells_usage:
                yield events.last(answers.usage(run.prompt_tokens, run.completion_tokens))
        except ServeryError as failure:
            # The status has been sent; the client's library knows this event.
            yield event(errors.body(failure))
        except Exception as error:
            yield event(errors.body(failed(head.model, error)))
        yield _DONE

    # Vectors and ranks: rows of ``predict``, which the batcher merges with everybody else's.

    async def _embed(self, asked: EmbeddingRequest) -> Response:
        _, model = self._entry(asked.model)
        if not isinstance(model, EmbeddingModel):
            raise NoSuchAbility(f"model {asked.model!r} embeds nothing")
        found = await self._infer(asked.model, {language.TEXT: asked.texts}, language.EMBEDDING)
        vectors, tokens = found[language.EMBEDDING].astype(np.float32), int(found[language.TOKENS].sum())
        if asked.dimensions is not None:
            if asked.dimensions > vectors.shape[1]:
                raise errors.Refused(
                    f"dimensions: {asked.dimensions}, but the vectors have {vectors.shape[1]}", param="dimensions"
                )
            vectors = vectors[:, : asked.dimensions]
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        encoded = (
            map(base64_floats, vectors) if asked.encoding_format == "base64" else map(np.ascontiguousarray, vectors)
        )
        data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(encoded)]
        taken = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "data": data, "model": asked.model, "usage": taken})

    async def _rank(self, asked: RerankRequest) -> Response:
        _, model = self._entry(asked.model)
        if not isinstance(model, RankingModel):
            raise NoSuchAbility(f"model {asked.model!r} ranks nothing")
        texts = asked.texts
        inputs = {language.QUERY: (asked.query,) * len(texts), language.DOCUMENT: texts}
        found = await self._infer(asked.model, inputs, language.SCORE)
        scores, tokens = found[language.SCORE], int(found[language.TOKENS].sum())
        best = sorted(range(len(texts)), key=lambda index: -float(scores[index]))[: asked.top_n]
        results = [
            {
                "index": index,
                "relevance_score": float(scores[index]),
                **({"document": {"text": texts[index]}} if asked.return_documents else {}),
            }
            for index in best
        ]
        taken = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"id": f"rerank-{uuid.uuid4().hex}", "model": asked.model, "results": results, "usage": taken})

    # Sounds.

    async def _transcribe(self, asked: TranslationRequest) -> Response:
        entry, model = self._entry(asked.model)
        if not isinstance(model, TranscribingModel):
            raise NoSuchAbility(f"model {asked.model!r} writes down no speech")
        if not isinstance(asked, TranscriptionRequest) and not model.translates:
            raise NoSuchAbility(f"model {asked.model!r} does not translate; ask it for transcriptions")
        file = Tensor(name=language.AUDIO, data=objects([asked.file]), datatype=Datatype.BYTES)
        request = InferRequest(model=asked.model, inputs=(file,), outputs=(language.TEXT,), parameters=asked.parameters)
        if isinstance(asked, TranscriptionRequest) and asked.stream:
            return await self._listen(request, entry, model)
        more = (language.SEGMENTS, language.SPOKEN) if asked.is_timed else ()
        request = replace(request, outputs=(language.TEXT, language.DURATION, *more))
        response: InferResponse = await self._plane.infer(request, protocol=PROTOCOL)
        found = {tensor.name: tensor.data[0] for tensor in response.outputs}
        return audio.transcript(
            asked,
            as_text(found[language.TEXT]),
            orjson.loads(found[language.SEGMENTS]) if asked.is_timed else (),
            language=as_text(found[language.SPOKEN]) if asked.is_timed else "",
            seconds=float(found[language.DURATION]),
        )

    async def _listen(self, request: InferRequest, entry: Entry, model: object) -> Response:
        if isinstance(model, ListeningModel):
            # What passes the data plane by is counted here.
            self._plane.metrics.requests.labels(entry.name, PROTOCOL, "OK").inc()
            parts = in_time(model.listen(request), entry, self._plane.repository.timeout_seconds)
        else:
            parts = self._at_once(request)
        # A file that cannot be heard is refused with a status, so the stream begins with the first part.
        first = await _caught(anext(parts, ""), entry)
        return Response(stream=_heard(first, parts, entry), content_type=_EVENT_STREAM, headers=_NO_STORE)

    async def _at_once(self, request: InferRequest) -> AsyncGenerator[str, None]:
        """Yield the text of a model that tells nothing before it has heard all."""
        response: InferResponse = await self._plane.infer(request, protocol=PROTOCOL)
        yield as_text(response.outputs[0].data[0])

    async def _speak(self, asked: SpeechRequest) -> Response:
        _, model = self._entry(asked.model)
        if not isinstance(model, SpeakingModel):
            raise NoSuchAbility(f"model {asked.model!r} speaks no text")
        text = Tensor(name=language.TEXT, data=objects([asked.input.encode()]), datatype=Datatype.BYTES)
        request = InferRequest(
            model=asked.model, inputs=(text,), outputs=(language.AUDIO,), parameters=asked.parameters
        )
        response: InferResponse = await self._plane.infer(request, protocol=PROTOCOL)
        return audio.speech(asked, response.outputs[0].data[0])

    async def _infer(self, model: str, inputs: Mapping[str, Sequence[str]], output: str) -> dict[str, Any]:
        tensors = tuple(
            Tensor(name=name, data=objects([text.encode() for text in texts]), datatype=Datatype.BYTES)
            for name, texts in inputs.items()
        )
        request = InferRequest(model=model, inputs=tensors, outputs=(output, language.TOKENS))
        response: InferResponse = await self._plane.infer(request, protocol=PROTOCOL)
        found = {tensor.name: tensor.data for tensor in response.outputs}
        self._plane.metrics.prompt_tokens.labels(model).inc(int(found[language.TOKENS].sum()))
        return found

    def _entry(self, name: str) -> tuple[Entry, object]:
        """Return a model that is ready, and what has its abilities.

        Raises:
            UnknownModel: No such model.
            ModelNotReady: It cannot answer.
        """
        entry = self._plane.repository.ready(name)
        return replace(entry), held(entry.model)


def _asked(kind: type[Body], request: Request) -> Body:
    if issubclass(kind, TranslationRequest):
        return read_form(kind, header(request.headers, b"content-type") or b"", request.body)
    return read(kind, request.body)


_Answer = TypeVar("_Answer")


async def _caught(answer: Awaitable[_Answer], entry: Entry) -> _Answer:
    try:
        return await answer
    except ServeryError:
        raise
    except Exception as error:
        # Somebody else's model may raise anything.
        raise failed(entry.name, error) from error


async def _heard(first: str, parts: AsyncGenerator[str, None], entry: Entry) -> AsyncGenerator[bytes, None]:
    """Yield the events of a transcript: its parts, and all of it."""
    written = first
    try:
        async with aclosing(parts):
            if first:
                yield event(audio.delta(first))
            async for part in parts:
                written += part
                yield event(audio.delta(part))
        yield event(audio.done(written))
    except ServeryError as failure:
        # As of texts: the status has been sent.
        yield event(errors.body(failure))
    except Exception as error:
        yield event(errors.body(failed(entry.name, error)))


def failed(model: str, error: Exception) -> ModelFailed:
    """Return what a model that raised is told to have done, and log it."""
    logger.error("model failed", exc_info=error, extra={"model": model})
    return ModelFailed(f"model {model!r} failed: {type(error).__name__}: {error}")


def _json(document: Mapping[str, Any]) -> Response:
    return Response(body=orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))
