"""Which runtime serves a model, and why not the others.

Source: KServe pkg/controller/v1beta1/inferenceservice/utils (GetSupportingRuntimes).
"""

from __future__ import annotations

from collections.abc import Sequence

from servery_sdk.model import (
    Catalog,
    ModelFormat,
    Protocol,
    Rejection,
    Runtime,
    RuntimeRequest,
    RuntimeScope,
    Selection,
    SupportedFormat,
)

from servery_controller.planning.errors import NoRuntime

_SCOPES = list(RuntimeScope)
_PROTOCOLS = list(Protocol)


def select_runtime(request: RuntimeRequest, catalog: Catalog, *, namespace: str) -> Selection:
    """Return the runtime for ``request``.

    Raises:
        NoRuntime: With every runtime's own reason.
    """
    visible = [runtime for runtime in catalog.runtimes if _is_visible(runtime, namespace)]
    if request.name is not None:
        return _named(request.name, request, visible, catalog, namespace)
    rejected = [Rejection(runtime=r.name, reason=reason) for r in visible if (reason := _objection(r, request))]
    fitting = sorted((r for r in visible if _objection(r, request) is None), key=lambda r: _rank(r, request))
    rejected += [Rejection(runtime=name, reason=why) for name, why in sorted(catalog.broken_runtimes.items())]
    if not fitting:
        raise NoRuntime(f"no runtime serves {_wanted(request)} in namespace {namespace!r}", rejected)
    chosen = fitting[0]
    rejected += [Rejection(runtime=other.name, reason=_outranked(other, chosen, request)) for other in fitting[1:]]
    reason = f"{chosen.name} serves {_wanted(request)} and ranks first of {len(fitting)} that do"
    return Selection(runtime=chosen, protocol=_protocol(request, chosen), reason=reason, rejected=tuple(rejected))


def _named(
    name: str, request: RuntimeRequest, visible: Sequence[Runtime], catalog: Catalog, namespace: str
) -> Selection:
    found = sorted(
        (r for r in visible if name == r.name or name in r.aliases),
        # A name of one's own before an alias, the nearest scope first.
        key=lambda r: (_SCOPES.index(r.scope), r.name != name),
    )
    if not found:
        if name in catalog.broken_runtimes:
            raise NoRuntime(
                f"runtime {name!r} is invalid: {catalog.broken_runtimes[name]}", reason="RuntimeNotRecognized"
            )
        known = ", ".join(sorted({r.name for r in visible})) or "none"
        raise NoRuntime(
            f"no ServingRuntime or ClusterServingRuntime with the name {name!r} in namespace {namespace!r}; there are: {known}",
            reason="RuntimeNotRecognized",
        )
    runtime = found[0]
    if runtime.disabled:
        raise NoRuntime(f"runtime {name!r} is disabled", reason="RuntimeDisabled")
    if request.format is not None and runtime.formats and not any(_matches(f, request.format) for f in runtime.formats):
        raise NoRuntime(
            f"runtime {name!r} does not support model format {request.format}; it supports: {_formats(runtime)}"
        )
    if request.protocol is not None and not _speaks(runtime, request.protocol):
        raise NoRuntime(
            f"runtime {name!r} does not speak protocol {str(request.protocol)!r}; it speaks: {_spoken(runtime)}"
        )
    reason = f"the manifest names {name}" + (f", which {runtime.name} stands for" if name != runtime.name else "")
    return Selection(runtime=runtime, protocol=_protocol(request, runtime), reason=reason)


def _is_visible(runtime: Runtime, namespace: str) -> bool:
    return runtime.scope is not RuntimeScope.NAMESPACE or runtime.ref is None or runtime.ref.namespace == namespace


def _objection(runtime: Runtime, request: RuntimeRequest) -> str | None:
    """Return why ``runtime`` is not chosen without being named, or None."""
    wanted = request.format
    assert wanted is not None
    if runtime.disabled:
        return "disabled"
    if runtime.multi_model:
        return "multi-model"
    if runtime.multi_node:
        return "multi-node"
    of_name = [found for found in runtime.formats if found.name == wanted.name]
    if not of_name:
        return "format"
    selectable = [found for found in of_name if found.auto_select]
    if not selectable:
        return "autoSelect is off"
    if not any(_matches(found, wanted) for found in selectable):
        versions = ", ".join(f'"{found.version}"' for found in selectable if found.version) or "none"
        return f"version {versions}"
    protocol = request.protocol or Protocol.V1
    if not _speaks(runtime, protocol):
        return f"protocol {_spoken(runtime)}"
    return None


def _matches(found: SupportedFormat, wanted: ModelFormat) -> bool:
    return found.name == wanted.name and (wanted.version is None or found.version == wanted.version)


def _speaks(runtime: Runtime, protocol: Protocol) -> bool:
    return not runtime.protocols or protocol in runtime.protocols


def _rank(runtime: Runtime, request: RuntimeRequest) -> tuple[object, ...]:
    spoken = min((_PROTOCOLS.index(protocol) for protocol in runtime.protocols), default=len(_PROTOCOLS))
    newest_first = tuple(-ord(letter) for letter in runtime.created)
    return (_SCOPES.index(runtime.scope), -_priority(runtime, request), spoken, newest_first, runtime.name)


def _priority(runtime: Runtime, request: RuntimeRequest) -> int:
    wanted = request.format
    assert wanted is not None
    return max((f.priority or 0 for f in runtime.formats if _matches(f, wanted)), default=0)


def _outranked(other: Runtime, chosen: Runtime, request: RuntimeRequest) -> str:
    if other.scope is not chosen.scope:
        return f"{other.scope} comes after {chosen.scope}"
    if _priority(other, request) != _priority(chosen, request):
        return f"priority {_priority(other, request)} below {_priority(chosen, request)}"
    return "older or later by name"


def _protocol(request: RuntimeRequest, runtime: Runtime) -> Protocol | None:
    return request.protocol or min(runtime.protocols, key=_PROTOCOLS.index, default=None)


def _wanted(request: RuntimeRequest) -> str:
    return f'model format {request.format} over protocol "{request.protocol or Protocol.V1}"'


def _formats(runtime: Runtime) -> str:
    return ", ".join(str(ModelFormat(name=found.name, version=found.version)) for found in runtime.formats)


def _spoken(runtime: Runtime) -> str:
    return ", ".join(sorted(f'"{protocol}"' for protocol in runtime.protocols)) or "any"
