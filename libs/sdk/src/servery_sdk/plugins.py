"""Finds plugins, calls each hook once and indexes what they return by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from servery_sdk import hooks
from servery_sdk.contract import Dialect, Mode
from servery_sdk.errors import ServeryError
from servery_sdk.model import Runtime
from servery_sdk.payloads import PayloadSink
from servery_sdk.storage import StorageProvider


class DuplicatePlugin(ServeryError):
    """Two distributions contribute one name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """What the installed plugins contribute, by name."""

    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    modes: Mapping[str, Mode] = field(default_factory=dict)
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    storage_providers: Mapping[str, StorageProvider] = field(default_factory=dict)
    payload_sinks: Mapping[str, PayloadSink] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    """``hook:name`` to the distribution that contributes it."""


def plugin_manager() -> pluggy.PluginManager:
    """Return a manager with every installed plugin, its hooks checked against the specifications.

    Raises:
        DuplicatePlugin: Two distributions register a plugin under one name; says both.
    """
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    _check_names(entry_points(group=hooks.PROJECT))
    manager.load_setuptools_entrypoints(hooks.PROJECT)
    manager.check_pending()
    return manager


def load(manager: pluggy.PluginManager | None = None) -> Plugins:
    """Call every hook once.

    Raises:
        DuplicatePlugin: Two distributions contribute one name; says both.
    """
    manager = manager or plugin_manager()
    sources: dict[str, str] = {}
    return Plugins(
        dialects=_index(manager, "servery_dialects", sources),
        modes=_index(manager, "servery_modes", sources),
        runtimes=_index(manager, "servery_runtimes", sources),
        storage_providers=_index(manager, "servery_storage_providers", sources),
        payload_sinks=_index(manager, "servery_payload_sinks", sources),
        sources=sources,
    )


def _check_names(registered: Iterable[EntryPoint]) -> None:
    """Refuse what pluggy would pass over without a word: the second plugin of a name."""
    origins: dict[str, str] = {}
    for entry in registered:
        # One distribution may be found twice, by a folder that is on the path twice.
        origin = entry.dist.name if entry.dist is not None else entry.value
        if origins.setdefault(entry.name, origin) != origin:
            raise DuplicatePlugin(
                f"entry points of group {hooks.PROJECT!r}: {entry.name!r} is registered by both {origins[entry.name]} "
                f"and {origin}; rename or uninstall one"
            )


def _index(manager: pluggy.PluginManager, hook: str, sources: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        contributed: Iterable[Any] = implementation.function()
        origin = _distribution(manager, implementation.plugin)
        for value in contributed:
            if value.name in found:
                other = sources[f"{hook}:{value.name}"]
                raise DuplicatePlugin(
                    f"{hook}: {value.name!r} is provided by both {other} and {origin}; uninstall or block one"
                )
            found[value.name] = value
            sources[f"{hook}:{value.name}"] = origin
    return dict(sorted(found.items()))


def _distribution(manager: pluggy.PluginManager, plugin: object) -> str:
    for registered, distribution in manager.list_plugin_distinfo():
        if registered is plugin:
            return str(distribution.project_name)
    return manager.get_name(plugin) or repr(plugin)
