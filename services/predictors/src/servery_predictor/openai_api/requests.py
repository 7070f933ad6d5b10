"""The bodies of OpenAI's requests. What a body says and no model here can do is refused by its field.

Source: OpenAI API reference, "Completions", "Chat", "Embeddings"; Cohere and Jina for "rerank"; vLLM for ``top_k``,
``ignore_eos`` and ``chat_template_kwargs``. Fields that only say who asks (``user``, ``store``, …) are let through.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from servery_sdk.language import Prompt, Sampling

from servery_predictor.openai_api.errors import Refused

MAX_CHOICES = 128
MAX_LOGPROBS = 20
DEFAULT_COMPLETION_TOKENS = 16

Ids: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Texts: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model: str


class StreamOptions(BaseModel):
    """What a stream tells beside its pieces."""

    include_usage: bool = False


class _Generating(_Body):
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Annotated[str, Field(min_length=1)] | tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    ignore_eos: bool = False
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @property
    def choices(self) -> int:
        """How many answers to one prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def tells_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0,
            top_k=self.top_k if self.top_k is not None and self.top_k > 0 else None,
            seed=self.seed,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            logprobs=logprobs,
            ignores_end=self.ignore_eos,
        )


class CompletionRequest(_Generating):
    """Of ``POST /completions``."""

    prompt: str | Ids | Annotated[tuple[str | Ids, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool = False
    suffix: Literal[""] | None = None
    best_of: Literal[1] | None = None

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """What is to be continued, each on its own."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return (self.prompt,)
        return self.prompt

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return self._sampling(self.max_tokens or DEFAULT_COMPLETION_TOKENS, self.logprobs)


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One of a conversation; other fields, such as ``tool_calls``, are the chat template's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str | tuple[TextPart, ...] | None = None

    def for_template(self) -> Mapping[str, Any]:
        """Return it with its content as one text."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return {**(self.model_extra or {}), "role": self.role, "content": content}


class PlainFormat(BaseModel):
    """The answer's form."""

    type: Literal["text"]


class ChatRequest(_Generating):
    """Of ``POST /chat/completions``."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: PlainFormat | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self._sampling(self.max_completion_tokens or self.max_tokens, logprobs)

    @property
    def template_options(self) -> Mapping[str, Any]:
        """What the chat template is told beside the messages."""
        tools = {"tools": list(self.tools)} if self.tools and self.tool_choice != "none" else {}
        return {**(self.chat_template_kwargs or {}), **tools}


class EmbeddingRequest(_Body):
    """Of ``POST /embeddings``."""

    input: Annotated[str, Field(min_length=1)] | Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be embedded."""
        return (self.input,) if isinstance(self.input, str) else self.input


class DocumentObject(BaseModel):
    """A document that is more than a text."""

    text: str


class RerankRequest(_Body):
    """Of ``POST /rerank``."""

    query: str
    documents: Annotated[tuple[str | DocumentObject, ...], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be ranked."""
        return tuple(one if isinstance(one, str) else one.text for one in self.documents)


Body = TypeVar("Body", bound=_Body)


def read(kind: type[Body], body: bytes) -> Body:
    """Return the request that ``body`` spells.

    Raises:
        Refused: It spells none; names the first wrong field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False)
        param = str(found[0]["loc"][0]) if found[0]["loc"] else None
        # A field of several forms has a complaint for each form.
        complaints = dict.fromkeys(one["msg"] for one in found if one["loc"][:1] == found[0]["loc"][:1])
        raise Refused(f"{param or 'the body'}: {', or: '.join(complaints)}", param=param) from error


def base64_floats(vector: Any) -> str:
    """Return a vector's little-endian float32 bytes in base64, which OpenAI's client asks for."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
