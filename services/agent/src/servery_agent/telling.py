"""``servery-agent stats`` and ``servery-agent drain``: commands of their own, that ask the agent beside them."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence

import grpc
from google.protobuf.json_format import MessageToDict
from servery_sdk.protos.servery.agent.v1 import agent_pb2 as pb
from servery_sdk.protos.servery.agent.v1 import agent_pb2_grpc as stubs

from servery_agent.settings import Settings

COMMANDS = ("stats", "drain")
_STATS_SECONDS = 5.0
_GRACE_SECONDS = 5.0
"""That an agent has, beside what it was told to take, to answer."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of both commands."""
    made = argparse.ArgumentParser("servery-agent", description="Ask the agent beside.", allow_abbrev=False)
    commands = made.add_subparsers(dest="command", required=True)
    stats = commands.add_parser("stats", help="print what goes through it, in JSON")
    drain = commands.add_parser("drain", help="have it say not ready, and end once nothing is in flight")
    for command in (stats, drain):
        command.add_argument("--host", default="127.0.0.1")
        command.add_argument("--metrics-port", type=int, default=None, help="the agent's; as it is set without")
    drain.add_argument("--quiet-seconds", type=float, default=0.0, help="how long nothing must have been in flight")
    drain.add_argument("--most-seconds", type=float, default=30.0, help="then it fails; 0 for no bound")
    return made


def main(arguments: Sequence[str]) -> int:
    """Return 0, or 1 where there is no agent, or something was in flight to the end."""
    options = parser().parse_args(arguments)
    port = Settings().metrics_port if options.metrics_port is None else options.metrics_port
    try:
        return asyncio.run(_ask(options, f"{options.host}:{port}"))
    except grpc.aio.AioRpcError as error:
        print(f"the agent at {options.host}:{port}: {error.details()}", file=sys.stderr)  # noqa: T201  # a command's
        return 1


async def _ask(options: argparse.Namespace, address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        agent = stubs.AgentStub(channel)  # type: ignore[no-untyped-call]  # generated
        if options.command == "stats":
            stats = await agent.Stats(pb.StatsRequest(), timeout=_STATS_SECONDS)
            said = MessageToDict(stats, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            print(json.dumps(said, indent=2, sort_keys=True))  # noqa: T201  # a command's
            return 0
        most = options.most_seconds
        asked = pb.DrainRequest(quiet_seconds=options.quiet_seconds, most_seconds=most)
        left = (await agent.Drain(asked, timeout=most + _GRACE_SECONDS if most else None)).left
    if left:
        print(f"{left} requests were in flight after {most:g} s", file=sys.stderr)  # noqa: T201  # a command's
    return 1 if left else 0
