"""What a model of language may do beside ``predict``: generate, chat, embed, rank.

The predictor's OpenAI routes find these abilities by ``isinstance`` on ``serving.held(model)``; every runtime may have them.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest
from servery_sdk.toolcalls import ToolForm


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPrompt:
    """Ids of tokens, and ``inputs`` that the model reads with them: what it made of images, which only itself knows."""

    ids: tuple[int, ...]
    inputs: Mapping[str, Any]


Prompt: TypeAlias = str | tuple[int, ...] | SeenPrompt
"""Text, or the ids of tokens in the model's own vocabulary, alone or with what a ``SeeingModel`` saw."""

TEXT = "text"
EMBEDDING = "embedding"
QUERY = "query"
DOCUMENT = "document"
SCORE = "score"
TOKENS = "tokens"
AUDIO = "audio"
SEGMENTS = "segments"
DURATION = "duration"
SPOKEN = "language"


class FinishReason(enum.StrEnum):
    """Why a text ends, in OpenAI's words."""

    STOP = "stop"
    """The model ended it, or a stop text came."""
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: To generate at most; None for as many as the model's context takes.
        temperature: 0 takes the likeliest token.
        top_p: Only the likeliest tokens whose probabilities sum to this are drawn from.
        top_k: Only so many of the likeliest tokens are drawn from; None for all.
        seed: Equal seeds draw equal tokens; None draws differently each time.
        frequency_penalty: Off a token's logit, for each time that it was generated.
        presence_penalty: Off a token's logit, once it was generated.
        logprobs: How many alternatives are told for each token, with their probabilities; None tells none, not even
            the token's own.
        ignores_end: Generate on when the model would end the text.
        json_schema: The text is a JSON document of this schema; None leaves it free. Only a ``ConstrainedModel`` does it.
        shows_special_tokens: Write tokens that are marks of the model's own, such as ``[TOOL_CALLS]``; not its end.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None
    ignores_end: bool = False
    json_schema: Mapping[str, Json] | None = None
    shows_special_tokens: bool = False


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that might have been, and the natural logarithm of its probability."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token that was generated.

    Attributes:
        logprob: Natural logarithm of its probability before temperature and the like.
        alternatives: The likeliest tokens in its place, likeliest first, itself perhaps among them.
    """

    text: str
    logprob: float
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next part of a text.

    Attributes:
        text: May be empty: a token may be a part of a character.
        count: Tokens that it took.
        tokens: Those, where ``Sampling.logprobs`` asks for them.
        finish: Set on the last piece, and only there.
    """

    text: str
    count: int
    tokens: tuple[Token, ...] = ()
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A text that is being generated.

    Attributes:
        prompt_tokens: What the prompt took of the context.
        pieces: Nothing is computed before they are first asked for; ``aclose`` stops the model.
    """

    prompt_tokens: int
    pieces: AsyncGenerator[Piece, None]


@runtime_checkable
class GenerativeModel(Protocol):
    """A model that continues a text. Called on the event loop; batching many texts is the model's own affair."""

    def generate(self, prompt: Prompt, sampling: Sampling, *, is_streamed: bool) -> Generation:
        """Return the text that follows ``prompt``.

        Args:
            prompt: What is to be continued.
            sampling: How.
            is_streamed: Whether each piece is wanted as soon as it is there; without, all may come as one.

        Raises:
            InputError: The prompt is too long, or the sampling is beyond the model.
        """


@runtime_checkable
class ChatModel(Protocol):
    """A generative model that knows how a conversation is written as a prompt."""

    def chat_prompt(self, messages: Sequence[Mapping[str, Json]], options: Mapping[str, Json]) -> Prompt:
        """Return the prompt whose continuation is the next message.

        Args:
            messages: Each with ``role`` and ``content``, as OpenAI writes them; contents are texts, arguments of calls
                are objects.
            options: For the model's template, such as ``enable_thinking``; ``tools`` among them where there are some.

        Raises:
            InputError: The model has no such conversations.
        """


@runtime_checkable
class SeeingModel(Protocol):
    """A chat model whose messages may have images: ``content`` is then a list of ``{"type": "text", "text": …}`` and
    ``{"type": "image", "image": bytes}``, an encoded file each.
    """

    @property
    def sees(self) -> bool:
        """False: this one does not, although others of its class do."""


@runtime_checkable
class ConstrainedModel(Protocol):
    """A generative model that can hold a text to ``Sampling.json_schema``."""

    constrains: bool
    """True."""


@runtime_checkable
class ToolCallingModel(Protocol):
    """A chat model whose texts may call tools."""

    @property
    def tool_form(self) -> ToolForm | None:
        """How it writes calls; None where that is not known, and they stay text."""


@runtime_checkable
class EmbeddingModel(Protocol):
    """A model whose ``predict`` takes BYTES ``text`` [rows] and answers FP32 ``embedding`` [rows, width], and INT64 ``tokens``
    [rows] where a request names that output.
    """

    embeds: bool
    """True."""


@runtime_checkable
class RankingModel(Protocol):
    """A model whose ``predict`` takes BYTES ``query`` and ``document``, both [rows], and answers FP32 ``score`` [rows], higher
    for documents that answer better, and INT64 ``tokens`` [rows] where a request names that output.
    """

    ranks: bool
    """True."""


@runtime_checkable
class TranscribingModel(Protocol):
    """A model whose ``predict`` takes BYTES ``audio`` [rows], an encoded file each, and answers BYTES ``text`` [rows].

    The parameters ``language`` (a code of ISO 639-1 or a name), ``prompt``, ``temperature`` and ``task`` (``transcribe`` or
    ``translate``) may be left out. Where a request names those outputs, it answers BYTES ``segments`` [rows], each a JSON list
    of objects with ``start`` and ``end`` in seconds and ``text``; FP64 ``duration`` [rows] in seconds; BYTES ``language``
    [rows], its name.
    """

    transcribes: bool
    """True."""

    @property
    def translates(self) -> bool:
        """Whether it takes the task ``translate``: English of what was said in another language."""


@runtime_checkable
class ListeningModel(Protocol):
    """A ``TranscribingModel`` that tells what was said while it still hears."""

    def listen(self, request: InferRequest) -> AsyncGenerator[str, None]:
        """Yield the parts of the text that ``predict`` would answer to a request of one row; ``aclose`` stops the model.

        Called on the event loop.

        Raises:
            InputError: With the first part: as ``predict``.
        """


class SoundFormat(enum.StrEnum):
    """Files of speech."""

    MP3 = "mp3"
    OPUS = "opus"
    """In Ogg."""
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"
    """Samples alone: 24,000 a second, INT16, little-endian, of one channel."""


@runtime_checkable
class SpeakingModel(Protocol):
    """A model whose ``predict`` takes BYTES ``text`` [rows] and answers BYTES ``audio`` [rows], a file each in base64.

    The parameters ``format`` (a ``SoundFormat``, ``wav`` if left out), ``voice`` (a text), ``speed`` (1 is the model's own) and
    ``seed`` may be left out.
    """

    speaks: bool
    """True."""
