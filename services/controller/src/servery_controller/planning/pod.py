"""The whole pod of a component: runtime, manifest, storage, in one place."""

from __future__ import annotations

from servery_sdk import kinds
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Adaptation, Catalog, Component, InferenceService, Selection

from servery_controller.planning.credentials import credentials
from servery_controller.planning.merge import merge
from servery_controller.planning.placeholders import fill
from servery_controller.planning.settings import PlanningSettings
from servery_controller.planning.storage import Storage, storage

_READS_MODEL = frozenset({"transformer-container", "worker-container"})
_PROBES = frozenset({"livenessProbe", "readinessProbe", "startupProbe"})
_POD_DEFAULTS: Manifest = {"terminationGracePeriodSeconds": 30}
DEFAULT_PORT = 8080


def pod(
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    catalog: Catalog,
    settings: PlanningSettings,
) -> Manifest:
    """Return the PodSpec that runs ``component``, its main container first.

    Raises:
        Invalid: A storage URI that no provider knows.
        NoPlan: A placeholder that cannot be filled.
    """
    metadata = {
        **service.metadata,
        "labels": {**adapted_labels(component, selection), **(service.metadata.get("labels") or {})},
    }
    spec = _runtime_pod(metadata, selection) if selection else {}
    overlay = {key: value for key, value in component.pod.items() if key != "containers"}
    spec = merge(spec, overlay)
    containers = _containers(metadata, component, selection)
    account = ObjectRef(kinds.SERVICE_ACCOUNT, service.ref.namespace, spec.get("serviceAccountName") or "default")
    added = storage(component.artifacts, settings, credentials(catalog, account))
    containers = [_equipped(container, component, added) for container in containers]
    spec = {**_POD_DEFAULTS, **spec, "containers": containers}
    if added.init_containers:
        spec["initContainers"] = [*added.init_containers, *spec.get("initContainers", ())]
    if added.volumes:
        spec["volumes"] = [*spec.get("volumes", ()), *added.volumes]
    if not settings.automount_service_account_token:
        spec.setdefault("automountServiceAccountToken", False)
    return spec


def adapted_labels(component: Component, selection: Selection | None) -> dict[str, str]:
    """Return the labels that the runtime has for services like this one."""
    return {key: value for fitting in _adaptations(component, selection) for key, value in fitting.labels.items()}


def _adaptations(component: Component, selection: Selection | None) -> list[Adaptation]:
    if selection is None:
        return []
    wanted = component.runtime.format.name if component.runtime is not None and component.runtime.format else ""
    has_artifact = bool(component.artifacts)
    return [
        found
        for found in selection.runtime.adaptations
        if (not found.formats or wanted in found.formats)
        and (not found.protocols or selection.protocol in found.protocols)
        and found.has_artifact in {None, has_artifact}
    ]


def _runtime_pod(metadata: Manifest, selection: Selection) -> dict[str, Json]:
    own = {key: value for key, value in selection.runtime.pod.items() if key != "containers"}
    filled = fill(own, metadata, where=f"runtime {selection.runtime.name}")
    assert isinstance(filled, dict)
    return filled


def _base(component: Component, selection: Selection) -> Manifest:
    """Return the runtime's main container, adapted to the service."""
    base = selection.runtime.container
    for found in _adaptations(component, selection):
        env = [{"name": name, "value": value} for name, value in found.env.items()]
        base = merge(base, {"env": env, "args": list(found.args)})
    return {"name": component.main_container, **base}


def _containers(metadata: Manifest, component: Component, selection: Selection | None) -> list[Manifest]:
    own = [dict(container) for container in component.pod.get("containers", ())]
    if selection is None:
        main = [container for container in own if container["name"] == component.main_container]
        return [*main, *(container for container in own if container["name"] != component.main_container)]
    where = f"runtime {selection.runtime.name}"
    main = [merge(fill(_base(component, selection), metadata, where=where), component.container)]
    if component.runtime is not None and component.runtime.version:
        main[0]["image"] = _tagged(str(main[0].get("image", "")), component.runtime.version)
    others = {c["name"]: c for c in fill(list(selection.runtime.pod.get("containers", ())), metadata, where=where)}
    for container in own:
        if container["name"] == component.main_container:
            main[0] = merge(main[0], container)
        else:
            others[container["name"]] = merge(others.get(container["name"], {}), container)
    return [*main, *others.values()]


def _equipped(container: Manifest, component: Component, added: Storage) -> Manifest:
    made = dict(container)
    is_main = made["name"] == component.main_container
    if is_main:
        promised = [{"name": name, "value": value} for name, value in component.env.items()]
        made["env"] = merge({"env": promised}, {"env": made.get("env", [])})["env"]
        made.setdefault("imagePullPolicy", "IfNotPresent")
        made.setdefault("readinessProbe", _probe(made))
        for name in _PROBES & made.keys():
            made[name] = _with_port(made[name], _port(made))
    if added.mounts and (is_main or made["name"] in _READS_MODEL):
        taken = {mount["mountPath"] for mount in made.get("volumeMounts", ())}
        mounts = [mount for mount in added.mounts if mount["mountPath"] not in taken]
        made["volumeMounts"] = [*made.get("volumeMounts", ()), *mounts]
    return made


def _port(container: Manifest) -> Json:
    ports = container.get("ports") or [{"containerPort": DEFAULT_PORT}]
    return ports[0]["containerPort"]


def _probe(container: Manifest) -> Manifest:
    """Return KServe's default: the port takes connections."""
    return {
        "tcpSocket": {"port": _port(container)},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }


def _with_port(probe: Manifest, port: Json) -> Manifest:
    # Knative fills a probe's port in, so manifests that were written for it leave it out.
    return {
        key: {**value, "port": value.get("port") or port} if key in {"httpGet", "tcpSocket"} else value
        for key, value in probe.items()
    }


def _tagged(image: str, tag: str) -> str:
    if "@" in image:
        return image
    repository, colon, rest = image.rpartition(":")
    # A colon before the last slash is a registry's port.
    return f"{image if not colon or '/' in rest else repository}:{tag}"
