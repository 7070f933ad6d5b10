"""Which runtime serves a model, and why not the others.

Source: KServe pkg/controller/v1beta1/inferenceservice/utils (GetSupportingRuntimes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from servery_sdk.manifests import CLUSTER, ObjectRef
from servery_sdk.model import (
    Catalog,
    ComponentKind,
    ModelFormat,
    ModelTraits,
    Protocol,
    Rejection,
    Runtime,
    RuntimeRequest,
    RuntimeScope,
    Selection,
    SupportedFormat,
    VersionRule,
)

from servery_controller.planning import versions
from servery_controller.planning.errors import NoRuntime

_SCOPES = list(RuntimeScope)
_PROTOCOLS = list(Protocol)


def select_runtime(
    request: RuntimeRequest,
    catalog: Catalog,
    *,
    service: ObjectRef,
    kind: ComponentKind = ComponentKind.PREDICTOR,
) -> Selection:
    """Return the runtime for a request of ``service``, whose component is of ``kind``.

    Raises:
        NoRuntime: With every runtime's own reason.
    """
    namespace = service.namespace
    is_explainer = kind is ComponentKind.EXPLAINER
    visible = [
        runtime
        for runtime in catalog.runtimes
        if _is_visible(runtime, service) and (ComponentKind.EXPLAINER in runtime.parts) is is_explainer
    ]
    if request.name is not None:
        return _named(request.name, request, visible, catalog, namespace)
    rejected = [Rejection(runtime=r.name, reason=reason) for r in visible if (reason := _objection(r, request))]
    fitting = sorted((r for r in visible if _objection(r, request) is None), key=lambda r: _rank(r, request))
    rejected += [Rejection(runtime=name, reason=why) for name, why in sorted(catalog.broken_runtimes.items())]
    if not fitting:
        unserved = f'no runtime serves {_wanted(request)} in namespace "{namespace}"'
        raise NoRuntime(unserved + _offered(visible, request), rejected)
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
    if request.format is not None and runtime.formats and not any(_matches(f, request) for f in runtime.formats):
        raise NoRuntime(
            f"runtime {name!r} does not support model format {request.format}; it supports: {_formats(runtime)}"
        )
    if (unfit := _size_objection(runtime, request) or _accelerator_objection(runtime, request)) is not None:
        raise NoRuntime(f"runtime {name!r} does not serve the model: {unfit}")
    if request.protocol is not None and not _speaks(runtime, request.protocol):
        raise NoRuntime(
            f"runtime {name!r} does not speak protocol {str(request.protocol)!r}; it speaks: {_spoken(runtime)}"
        )
    reason = f"the manifest names {name}" + (f", which {runtime.name} stands for" if name != runtime.name else "")
    return Selection(runtime=runtime, protocol=_protocol(request, runtime), reason=reason)


def _is_visible(runtime: Runtime, service: ObjectRef) -> bool:
    if runtime.ref is None:
        return True
    # A runtime object speaks of the containers that services of its own API group have.
    is_same_group = runtime.ref.kind.group == service.kind.group
    return is_same_group and runtime.ref.namespace in {CLUSTER, service.namespace}


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
    fitting = [found for found in selectable if _version_matches(found, wanted)]
    if not fitting:
        listed = ", ".join(f'"{found.version}"' for found in selectable if found.version) or "none"
        return f"version {listed}"
    if not any(_traits_objection(found, request.traits) is None for found in fitting):
        return "; ".join(filter(None, (_traits_objection(found, request.traits) for found in fitting)))
    if (unfit := _size_objection(runtime, request) or _accelerator_objection(runtime, request)) is not None:
        return unfit
    protocol = request.protocol or request.default_protocol
    if protocol is not None and not _speaks(runtime, protocol):
        return f"protocol {_spoken(runtime)}"
    return None


def _matches(found: SupportedFormat, request: RuntimeRequest) -> bool:
    wanted = request.format
    assert wanted is not None
    is_of_name = found.name == wanted.name and _version_matches(found, wanted)
    return is_of_name and _traits_objection(found, request.traits) is None


def _version_matches(found: SupportedFormat, wanted: ModelFormat) -> bool:
    if found.rule is VersionRule.IF_ASKED:
        return wanted.version is None or found.version == wanted.version
    return versions.answers(found.version, found.rule, wanted.version)


def _traits_objection(found: SupportedFormat, traits: ModelTraits) -> str | None:
    if not found.is_exact:
        return None
    for word, offered, asked in (
        ("architecture", found.architecture, traits.architecture),
        ("quantization", found.quantization, traits.quantization),
    ):
        if offered != asked:
            return f"{word} mismatch (model={asked or 'none'}, runtime={offered or 'none'})"
    ours, theirs = found.framework, traits.framework
    if ours is None and theirs is None:
        return None
    if ours is None or theirs is None or ours.name != theirs.name:
        return f"framework mismatch (model={theirs or 'none'}, runtime={ours or 'none'})"
    if not versions.answers(ours.version, found.framework_rule, theirs.version):
        return f"framework mismatch (model={theirs}, runtime={ours}, {found.framework_rule})"
    return None


def _size_objection(runtime: Runtime, request: RuntimeRequest) -> str | None:
    size, bounds = request.traits.parameters, runtime.parameters
    if size is None or ((bounds.fewest or 0) <= size and (bounds.most is None or size <= bounds.most)):
        return None
    most = "any" if bounds.most is None else f"{bounds.most:,}"
    return f"model size {size:,} is outside the supported range [{bounds.fewest or 0:,} to {most}] parameters"


def _accelerator_objection(runtime: Runtime, request: RuntimeRequest) -> str | None:
    missing = request.traits.accelerators - runtime.accelerators
    return f"does not serve accelerator class {', '.join(sorted(missing))}" if missing else None


def _speaks(runtime: Runtime, protocol: Protocol) -> bool:
    return not runtime.protocols or protocol in runtime.protocols


def _rank(runtime: Runtime, request: RuntimeRequest) -> tuple[object, ...]:
    spoken = min((_PROTOCOLS.index(protocol) for protocol in runtime.protocols), default=len(_PROTOCOLS))
    newest_first = tuple(-ord(letter) for letter in runtime.created)
    distance = _distance(runtime, request.traits.parameters)
    return (_SCOPES.index(runtime.scope), -_priority(runtime, request), distance, spoken, newest_first, runtime.name)


def _distance(runtime: Runtime, parameters: int | None) -> float:
    """Return how far a model's size is from the bounds of a runtime's: the closest range fits best, none least."""
    if parameters is None:
        return 0
    bounds = [bound for bound in (runtime.parameters.fewest, runtime.parameters.most) if bound is not None]
    return sum(abs(bound - parameters) for bound in bounds) if bounds else math.inf


def _priority(runtime: Runtime, request: RuntimeRequest) -> int:
    return max(
        (f.weight * (f.priority or 0) for f in runtime.formats if f.auto_select and _matches(f, request)), default=0
    )


def _outranked(other: Runtime, chosen: Runtime, request: RuntimeRequest) -> str:
    if other.scope is not chosen.scope:
        return f"{other.scope} comes after {chosen.scope}"
    if _priority(other, request) != _priority(chosen, request):
        return f"priority {_priority(other, request)} below {_priority(chosen, request)}"
    size = request.traits.parameters
    if _distance(other, size) != _distance(chosen, size):
        return "its range of sizes is further from the model's"
    return "older or later by name"


def _protocol(request: RuntimeRequest, runtime: Runtime) -> Protocol | None:
    return request.protocol or min(runtime.protocols, key=_PROTOCOLS.index, default=None)


def _wanted(request: RuntimeRequest) -> str:
    protocol = request.protocol or request.default_protocol
    return f"model format {request.format}" + (f' over protocol "{protocol}"' if protocol is not None else "")


def _formats(runtime: Runtime) -> str:
    return ", ".join(str(ModelFormat(name=found.name, version=found.version)) for found in runtime.formats)


def _offered(visible: Sequence[Runtime], request: RuntimeRequest) -> str:
    """Return which formats there are, where the one that was asked for is none of them."""
    assert request.format is not None
    known = sorted({found.name for runtime in visible for found in runtime.formats})
    if not known or request.format.name in known:
        return ""
    return f"; formats that runtimes serve: {', '.join(map(_quoted, known))}"


def _quoted(word: str) -> str:
    return f'"{word}"'


def _spoken(runtime: Runtime) -> str:
    return ", ".join(sorted(f'"{protocol}"' for protocol in runtime.protocols)) or "any"
