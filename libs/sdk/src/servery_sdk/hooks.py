"""The hooks, which are also the table of contents of what can be extended.

Each is called once, when a service starts, and returns named values. Register with an entry point of the group
``servery`` that names a module with the ``@hookimpl`` functions; the built-in plugins do the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from servery_sdk.contract import Dialect, Mode
from servery_sdk.model import Runtime
from servery_sdk.payloads import PayloadSink
from servery_sdk.storage import StorageProvider

PROJECT = "servery"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def servery_dialects() -> Iterable[Dialect]:  # type: ignore[empty-body]  # a hookspec has no body
    """Contribute languages of manifests. Called once, when a service starts."""


@hookspec
def servery_modes() -> Iterable[Mode]:  # type: ignore[empty-body]  # a hookspec has no body
    """Contribute ways to run a plan. Called once, when a service starts."""


@hookspec
def servery_runtimes() -> Iterable[Runtime]:  # type: ignore[empty-body]  # a hookspec has no body
    """Contribute serving runtimes. Called once, when a service starts. Must not import the ML framework:
    ``Runtime.model_class`` is an import string, resolved in the predictor process only.
    """


@hookspec
def servery_storage_providers() -> Iterable[StorageProvider]:  # type: ignore[empty-body]  # a hookspec has no body
    """Contribute storage providers. Called once, when the storage initializer starts. Must not import the source's SDK:
    a provider does that when it is first asked for something.
    """


@hookspec
def servery_payload_sinks() -> Iterable[PayloadSink]:  # type: ignore[empty-body]  # a hookspec has no body
    """Contribute places for payload logs. Called once, when what delivers an agent's log starts. Must not import the
    place's SDK: a sink does that when it is opened.
    """
