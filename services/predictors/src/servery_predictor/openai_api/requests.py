"""The bodies of OpenAI's requests. What a body says and no model here can do is refused by its field.

Source: OpenAI API reference, "Completions", "Chat", "Embeddings"; Cohere and Jina for "rerank"; vLLM for ``top_k``,
``ignore_eos`` and ``chat_template_kwargs``. Fields that only say who asks (``user``, ``store``, …) are let through.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from servery_sdk.language import Prompt, Sampling

from servery_predictor.openai_api.errors import Refused

MAX_CHOICES = 128
MAX_LOGPROBS = 20
DEFAULT_COMPLETION_TOKENS = 16

Ids: TypeAlias = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Texts: TypeAlias = Annotated[tuple[str, ...], Field(min_length=1)]


class RequestBody(BaseModel):
    """What every request names."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model: str


class StreamOptions(BaseModel):
    """What a stream tells beside its pieces."""

    include_usage: bool = False


class _Generating(RequestBody):
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


class ImageUrl(BaseModel):
    """Where an image is: in the URL itself. What strangers name is not fetched."""

    url: str

    @property
    def file(self) -> bytes:
        """The encoded image.

        Raises:
            Refused: It is an address, or no base64.
        """
        head, _, file = self.url.partition(",")
        if not head.startswith("data:") or not head.endswith(";base64"):
            raise Refused(
                "messages: image_url: addresses are not fetched; send the image itself, as data:image/png;base64,…",
                param="messages",
            )
        try:
            return base64.b64decode(file, validate=True)
        except ValueError as error:
            raise Refused(f"messages: image_url: no base64 behind the comma: {error}", param="messages") from error


class ImagePart(BaseModel):
    """A part of a message that is seen."""

    type: Literal["image_url"]
    image_url: ImageUrl


class CalledFunction(BaseModel):
    """What an earlier answer called."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    arguments: str | dict[str, Any] = "{}"


class Call(BaseModel):
    """A call in an earlier answer."""

    model_config = ConfigDict(frozen=True, extra="allow")

    function: CalledFunction

    def for_template(self) -> Mapping[str, Any]:
        """Return it with its arguments as an object, as templates take them; what is no JSON stays text."""
        arguments = self.function.arguments
        if isinstance(arguments, str):
            with contextlib.suppress(orjson.JSONDecodeError):
                arguments = orjson.loads(arguments or "{}")
        return {**self.model_dump(), "function": {**self.function.model_dump(), "arguments": arguments}}


class Message(BaseModel):
    """One of a conversation; other fields, such as ``tool_call_id``, are the chat template's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str | tuple[Annotated[TextPart | ImagePart, Field(discriminator="type")], ...] | None = None
    tool_calls: tuple[Call, ...] | None = None

    @property
    def has_images(self) -> bool:
        """Whether any of it is seen."""
        return isinstance(self.content, tuple) and any(isinstance(part, ImagePart) for part in self.content)

    def for_template(self) -> Mapping[str, Any]:
        """Return it with its content as one text, or as a list of texts and images where there are some.

        Raises:
            Refused: An image is no base64.
        """
        content: Any = self.content or ""
        if self.has_images:
            content = [_part(part) for part in content]
        elif not isinstance(content, str):
            content = "".join(part.text for part in content)
        calls = {"tool_calls": [call.for_template() for call in self.tool_calls]} if self.tool_calls else {}
        return {**(self.model_extra or {}), "role": self.role, "content": content, **calls}


def _part(part: TextPart | ImagePart) -> Mapping[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "image", "image": part.image_url.file}
    return {"type": "text", "text": part.text}


class PlainFormat(BaseModel):
    """The answer's form: any text, or any JSON object."""

    type: Literal["text", "json_object"]


class NamedSchema(BaseModel):
    """A JSON schema; strict or not, the answer is held to it."""

    name: str
    body: Annotated[dict[str, Any], Field(alias="schema")] = {}


class SchemaFormat(BaseModel):
    """The answer's form: JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class Function(BaseModel):
    """What a tool does; other fields are the chat template's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Annotated[str, Field(min_length=1)]
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """Something that the model may call."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Literal["function"] = "function"
    function: Function

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The schema of its arguments."""
        return self.function.parameters or {"type": "object"}


class FunctionName(BaseModel):
    """Which."""

    name: str


class NamedTool(BaseModel):
    """The tool that is to be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class ChatRequest(_Generating):
    """Of ``POST /chat/completions``."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    response_format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        return self._sampling(self.max_completion_tokens or self.max_tokens, logprobs)

    @property
    def template_options(self) -> Mapping[str, Any]:
        """What the chat template is told beside the messages."""
        tools = [tool.model_dump(exclude_unset=True) for tool in self.usable_tools]
        return {**(self.chat_template_kwargs or {}), **({"tools": tools} if tools else {})}

    @property
    def usable_tools(self) -> tuple[Tool, ...]:
        """What may be called."""
        return () if self.tool_choice == "none" else self.tools or ()

    @property
    def named_tool(self) -> Tool | None:
        """What must be called, if it has been named.

        Raises:
            Refused: There is no such tool.
        """
        if not isinstance(self.tool_choice, NamedTool):
            return None
        name, tools = self.tool_choice.function.name, {tool.function.name: tool for tool in self.tools or ()}
        if name not in tools:
            listed = ", ".join(sorted(tools)) or "none"
            raise Refused(f"tool_choice: {name!r} is none of the tools: {listed}", param="tool_choice")
        return tools[name]

    @property
    def json_schema(self) -> Mapping[str, Any] | None:
        """What the answer is held to; None where it is free."""
        if isinstance(self.response_format, SchemaFormat):
            return self.response_format.json_schema.body
        is_object = self.response_format is not None and self.response_format.type == "json_object"
        return {"type": "object"} if is_object else None


class EmbeddingRequest(RequestBody):
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


class RerankRequest(RequestBody):
    """Of ``POST /rerank``."""

    query: str
    documents: Annotated[tuple[str | DocumentObject, ...], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = True

    @property
    def texts(self) -> tuple[str, ...]:
        """What is to be ranked."""
        return tuple(one if isinstance(one, str) else one.text for one in self.documents)


Body = TypeVar("Body", bound=RequestBody)


def read(kind: type[Body], body: bytes) -> Body:
    """Return the request that ``body`` spells.

    Raises:
        Refused: It spells none; names the first wrong field.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        message, param = complaint(error)
        raise Refused(message, param=param) from error


def complaint(error: ValidationError) -> tuple[str, str | None]:
    """Return what is wrong with the first wrong field, and its name, None where it is the body itself."""
    found = error.errors(include_url=False)
    param = str(found[0]["loc"][0]) if found[0]["loc"] else None
    # A field of several forms has a complaint for each form.
    complaints = dict.fromkeys(one["msg"] for one in found if one["loc"][:1] == found[0]["loc"][:1])
    return f"{param or 'the body'}: {', or: '.join(complaints)}", param


def base64_floats(vector: Any) -> str:
    """Return a vector's little-endian float32 bytes in base64, which OpenAI's client asks for."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
