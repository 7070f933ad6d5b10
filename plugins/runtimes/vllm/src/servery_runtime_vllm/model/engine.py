"""vLLM's engine and its OpenAI application: the only module that speaks to vLLM, whose insides move with its releases."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import tempfile
from argparse import Namespace
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any, NoReturn

import vllm
from safetensors import SafetensorError, safe_open
from servery_sdk.applications import Application
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.language import FinishReason, Piece, Sampling
from servery_sdk.manifests import Json
from servery_sdk.serving import InputError, LoadError
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.api_server.app_state import init_app_state
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import tokens_input
from vllm.reasoning import ReasoningParserManager
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM

VERSION: str = vllm.__version__

_OURS: Mapping[str, str] = {
    "api_server_count": "one process serves; --data-parallel-size makes more engines",
    "grpc": "the predictor serves gRPC",
    "headless": "this process answers; run workers without a server with vLLM's own command",
    "port": "the predictor listens; say --http_port",
    "ssl_certfile": "the predictor listens, without TLS: a gateway in front has it",
    "ssl_keyfile": "the predictor listens, without TLS: a gateway in front has it",
    "uds": "the predictor listens; say --http_port",
}
"""Flags of vLLM's server that the predictor's own front has in its place."""


class _Parser(FlexibleArgumentParser):  # type: ignore[misc]  # vLLM ships no types that mypy reads
    def error(self, message: str) -> NoReturn:
        """Leave it to the caller, whose process this is."""
        raise LoadError(f"vLLM {VERSION}: {message}")


def parsed(command_line: Sequence[str]) -> Namespace:
    """Return vLLM's arguments.

    Raises:
        LoadError: vLLM does not know one, or the predictor has it in its own hands.
    """
    parser = make_arg_parser(_Parser(prog="vllm"))
    arguments: Namespace = parser.parse_args(list(command_line))
    for name, why in _OURS.items():
        if getattr(arguments, name, None) != parser.get_default(name):
            raise LoadError(f"--{name.replace('_', '-')}: {why}")
    if arguments.model_tag is not None:
        arguments.model = arguments.model_tag
    try:
        validate_parsed_serve_args(arguments)
        if arguments.tool_parser_plugin:
            ToolParserManager.import_tool_parser(arguments.tool_parser_plugin)
        if arguments.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(arguments.reasoning_parser_plugin)
    except Exception as error:
        # Plugins are anybody's code, and vLLM refuses with whatever comes to hand.
        raise LoadError(f"vLLM {VERSION}: {error}") from error
    return arguments


class Engine:
    """A model in vLLM's hands; ``start`` in a thread, then all else on one event loop.

    The engine's core and its workers are processes that vLLM starts, as with its own server.
    """

    def __init__(self, arguments: Namespace, llm: AsyncLLM) -> None:
        self._arguments, self._llm = arguments, llm
        self._scope = AsyncExitStack()
        self._numbers = itertools.count()
        self._app: Any = None

    @classmethod
    def start(cls, arguments: Namespace) -> Engine:
        """Read the model and warm it up.

        Raises:
            LoadError: vLLM cannot serve it, in vLLM's words.
        """
        _shorten_sockets()
        try:
            config = AsyncEngineArgs.from_cli_args(arguments).create_engine_config()
            llm = AsyncLLM.from_vllm_config(
                config,
                enable_log_requests=arguments.enable_log_requests,
                disable_log_stats=arguments.disable_log_stats,
            )
        except Exception as error:
            # Files of anybody, and a device that may be full.
            raise LoadError(f"{arguments.model}: {_reason(error)}") from error
        return cls(arguments, llm)

    async def begin(self) -> None:
        """Make vLLM's application, on the loop that will run it.

        Raises:
            LoadError: A template, an adapter or a parser is wrong.
        """
        try:
            await self._llm.reset_mm_cache()
            self.tasks: tuple[str, ...] = await self._llm.get_supported_tasks()
            self._app = build_app(self._arguments, self.tasks, self._llm.model_config)
            await init_app_state(self._llm, self._app.state, self._arguments, self.tasks)
        except Exception as error:
            # As above; adapters are read here.
            self.stop()
            raise LoadError(f"{self._arguments.model}: {_reason(error)}") from error
        # What vLLM's server does when its engine died is the liveness probe's affair here.
        self._app.state.server = Namespace(should_exit=False)
        if self._llm.log_stats:
            self._telling = asyncio.create_task(self._tell(), name="vllm-stats")

    @property
    def application(self) -> Application:
        """VLLM's own."""
        found: Application = self._app
        return found

    @property
    def is_guarded(self) -> bool:
        """Whether vLLM's application asks for a key."""
        return bool(self._arguments.api_key or vllm.envs.VLLM_API_KEY)

    @property
    def is_dead(self) -> bool:
        """Whether it will never answer again."""
        return bool(self._llm.errored)

    @property
    def most_texts(self) -> int:
        """Texts that are generated at one time."""
        return int(self._llm.vllm_config.scheduler_config.max_num_seqs)

    async def cards(self) -> Sequence[Mapping[str, Json]]:
        """Return OpenAI's list of its names and adapters."""
        shown = await self._app.state.openai_serving_models.show_available_models()
        found: Sequence[Mapping[str, Json]] = shown.model_dump(mode="json")["data"]
        return found

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a prompt."""
        return list(self._llm.renderer.get_tokenizer().encode(text))

    async def pieces(
        self, prompt: Sequence[int], sampling: Sampling, *, is_streamed: bool
    ) -> AsyncGenerator[Piece, None]:
        """Yield what follows ``prompt``; closing this stops it.

        Raises:
            InputError: vLLM refuses the prompt or the sampling.
            ServeryError: It has too many.
        """
        try:
            asked = _params(sampling, RequestOutputKind.DELTA if is_streamed else RequestOutputKind.FINAL_ONLY)
            outputs = self._llm.generate(tokens_input(list(prompt)), asked, f"servery-{next(self._numbers)}")
            async with aclosing(outputs):
                async for output in outputs:
                    (written,) = output.outputs
                    # vLLM has more reasons, such as a text that repeats itself; all but this one are ends.
                    ended = FinishReason.LENGTH if written.finish_reason == "length" else FinishReason.STOP
                    finish = ended if output.finished else None
                    yield Piece(text=written.text, count=len(written.token_ids), finish=finish)
        except GracefulHTTPError as error:
            # Its queue is full, as --max-num-queued-reqs has it.
            raise ServeryError(str(error), code=ErrorCode.RESOURCE_EXHAUSTED) from error
        except (VLLMClientError, ValueError) as error:
            raise InputError(str(error)) from error

    def stop(self) -> None:
        """End the engine's processes; vLLM gives them some seconds."""
        telling = getattr(self, "_telling", None)
        if telling is not None:
            telling.cancel()
        self._llm.shutdown(timeout=self._llm.vllm_config.shutdown_timeout)

    async def _tell(self) -> None:
        # What vLLM's server does beside its application: a line of its log now and then.
        while True:
            await asyncio.sleep(vllm.envs.VLLM_LOG_STATS_INTERVAL)
            await self._llm.do_log_stats()


_SOCKETS = "VLLM_RPC_BASE_PATH"
_LONGEST = 60
"""Bytes: Linux takes 107 for a socket's path, and vLLM puts a number of 37 behind its directory."""
_CONFIGS = ("config.json", "params.json")


def check(directory: Path) -> None:
    """Look at files that lie here before an engine is started, whose own complaints are in the log of another process.

    Raises:
        LoadError: Nothing that vLLM begins with is here, or a file of weights is broken.
    """
    if not any((directory / name).is_file() for name in _CONFIGS):
        present = ", ".join(sorted(path.name for path in directory.iterdir())) if directory.is_dir() else ""
        raise LoadError(f"{directory}: a model for vLLM has a config.json; found: {present or 'nothing'}")
    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise LoadError(f"{path}: {error}") from error


def _shorten_sockets() -> None:
    """Have vLLM's processes meet where the paths of sockets are short enough; a pod of the local platform lies deep."""
    if _SOCKETS not in os.environ and len(tempfile.gettempdir()) > _LONGEST:
        made = tempfile.mkdtemp(prefix="vllm-", dir="/tmp")  # mkdtemp's own is what is too long
        os.environ[_SOCKETS] = made
        atexit.register(shutil.rmtree, made, ignore_errors=True)


def _params(sampling: Sampling, kind: RequestOutputKind) -> SamplingParams:
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or 0,
        seed=sampling.seed,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        ignore_eos=sampling.ignores_end,
        output_kind=kind,
    )


def _reason(error: BaseException) -> str:
    return f"vLLM {VERSION}: {type(error).__name__}: {error}"
