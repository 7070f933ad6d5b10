"""The whole pod of a component: runtime, manifest, storage, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from servery_sdk import kinds
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Adaptation, Catalog, Component, InferenceService, Part, Selection, WorkerPods
from servery_sdk.quantities import parse
from servery_sdk.runtimes import MODEL_DIR

from servery_controller.planning import held
from servery_controller.planning.agent import SPOOL_VOLUME, agent, granted_to, needs_agent
from servery_controller.planning.credentials import credentials
from servery_controller.planning.errors import NoPlan
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
        NoPlan: A placeholder that cannot be filled, or a runtime that does not serve this kind of component.
    """
    part = _part(component, selection)
    recipe = _Recipe(
        container=_base(component, selection, part),
        pod=part.pod,
        container_overlay=component.container,
        pod_overlay=component.pod,
        answers=True,
    )
    return _assembled(recipe, service, component, selection, catalog, settings)


def workers(
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    catalog: Catalog,
    settings: PlanningSettings,
) -> WorkerPods | None:
    """Return the pods that each pod of ``component`` leads, None for none; raises as ``pod`` does."""
    part, asked = _part(component, selection), component.workers
    count = asked.count if asked is not None else part.worker_count
    if count == 0:
        return None
    # A runtime that says nothing of its workers runs the same everywhere, but only the leader answers requests.
    has_own = part.worker_container is not None
    if part.worker_container is not None:
        container = part.worker_container
    else:
        container = {k: v for k, v in _base(component, selection, part).items() if k not in _PROBES}
    recipe = _Recipe(
        container={"name": component.main_container, **container},
        pod=part.worker_pod if has_own else part.pod,
        container_overlay=asked.container if asked is not None else {},
        pod_overlay=asked.pod if asked is not None else {},
    )
    return WorkerPods(count=count, pod=_assembled(recipe, service, component, selection, catalog, settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recipe:
    """What one pod is made of: the runtime's, and the manifest's over it; whether it answers requests."""

    container: Manifest
    pod: Manifest
    container_overlay: Manifest
    pod_overlay: Manifest
    answers: bool = False


def _part(component: Component, selection: Selection | None) -> Part:
    if selection is None:
        return Part()
    part = selection.runtime.parts.get(component.kind)
    if part is None:
        known = ", ".join(sorted(selection.runtime.parts)) or "nothing"
        raise NoPlan(f"runtime {selection.runtime.name} has no {component.kind}; it has: {known}")
    return part


def _assembled(
    recipe: _Recipe,
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    catalog: Catalog,
    settings: PlanningSettings,
) -> Manifest:
    labels = {**adapted_labels(component, selection), **(service.metadata.get("labels") or {})}
    metadata = {**service.metadata, "labels": labels}
    where = f"runtime {selection.runtime.name}" if selection else "manifest"
    own = {key: value for key, value in recipe.pod.items() if key != "containers"}
    overlay = {key: value for key, value in recipe.pod_overlay.items() if key != "containers"}
    spec = _over(fill(own, metadata, where=where), overlay, component, selection)
    containers = _containers(recipe, metadata, component, selection, where)
    account = ObjectRef(kinds.SERVICE_ACCOUNT, service.ref.namespace, spec.get("serviceAccountName") or "default")
    given_credentials = credentials(catalog, account)
    added = storage(component.artifacts, settings, given_credentials)
    if component.held is not None:
        added = replace(added, mounts=(*added.mounts, held.main_mount()))
    containers = [
        _equipped(container, component, added, is_main=index == 0, answers=recipe.answers)
        for index, container in enumerate(containers)
    ]
    if recipe.answers and needs_agent(component):
        main, granted = containers[0], granted_to(component, catalog, account)
        containers.append(agent(service, component, selection, main, _port(main), granted, settings))
        had = {volume["name"] for volume in (*spec.get("volumes", ()), *added.volumes)}
        volumes = [{"name": SPOOL_VOLUME, "emptyDir": {}}, *(v for v in granted.volumes if v["name"] not in had)]
        spec["volumes"] = [*spec.get("volumes", ()), *volumes]
        models = held.held(service, component, selection, main, settings)
        if models is not None:
            containers.append(held.daemon(settings, given_credentials, main.get("securityContext")))
            had = {volume["name"] for volume in (*spec["volumes"], *added.volumes)}
            more = (volume for volume in held.volumes(models, given_credentials, settings) if volume["name"] not in had)
            added = replace(added, volumes=(*added.volumes, *more))
    spec = {**_POD_DEFAULTS, **spec, "containers": containers}
    if added.init_containers:
        spec["initContainers"] = [*added.init_containers, *spec.get("initContainers", ())]
    if added.volumes:
        spec["volumes"] = [*spec.get("volumes", ()), *added.volumes]
    # What looks at the pods of its namespace needs its account's token for that.
    if not settings.automount_service_account_token and not component.reads_pods:
        spec.setdefault("automountServiceAccountToken", False)
    return spec


def _over(base: Manifest, overlay: Manifest, component: Component, selection: Selection | None) -> dict[str, Json]:
    # Our own predictor needs its flags: those of a manifest come behind them.
    is_ours = selection is not None and selection.runtime.model_class is not None
    replaced = set() if is_ours else component.replaced & overlay.keys()
    return merge({key: value for key, value in base.items() if key not in replaced}, overlay)


def with_accelerators(
    component: Component, leader: Manifest, followers: WorkerPods | None
) -> tuple[Manifest, WorkerPods | None]:
    """Return the pod and its workers, each told how many GPUs they have together where it is to be told."""
    name = component.accelerators_env
    total = _gpus(leader) + (followers.count * _gpus(followers.pod) if followers is not None else 0)
    if name is None or total == 0:
        return leader, followers
    told = {"name": name, "value": str(total)}
    if followers is not None:
        followers = replace(followers, pod=_with_variable(followers.pod, told))
    return _with_variable(leader, told), followers


def _gpus(pod: Manifest) -> int:
    resources = pod["containers"][0].get("resources") or {}
    found = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return sum(int(parse(count)) for name, count in found.items() if name.endswith("/gpu"))


def _with_variable(pod: Manifest, variable: Manifest) -> Manifest:
    main, *others = pod["containers"]
    env = main.get("env") or []
    if any(given["name"] == variable["name"] for given in env):
        return pod
    return {**pod, "containers": [{**main, "env": [variable, *env]}, *others]}


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


def _base(component: Component, selection: Selection | None, part: Part) -> Manifest:
    """Return the runtime's main container, adapted to the service."""
    base = part.container
    for found in _adaptations(component, selection):
        env = [{"name": name, "value": value} for name, value in found.env.items()]
        base = merge(base, {"env": env, "args": list(found.args)})
    is_ours = selection is not None and selection.runtime.model_class is not None
    if is_ours and component.artifacts and component.artifacts[0].mount_path != MODEL_DIR:
        # Our own predictor looks where it is told; the last of two flags counts.
        base = merge(base, {"args": [f"--model_dir={component.artifacts[0].mount_path}"]})
    batching = component.batching
    if is_ours and batching is not None and not batching.is_in_front and batching.max_batch_rows is not None:
        base = merge(base, {"args": [f"--max_batch_rows={batching.max_batch_rows}"]})
    return {"name": component.main_container, **base}


def _containers(
    recipe: _Recipe, metadata: Manifest, component: Component, selection: Selection | None, where: str
) -> list[Manifest]:
    own = [dict(container) for container in recipe.pod_overlay.get("containers", ())]
    if selection is None:
        main = [container for container in own if container["name"] == component.main_container]
        return [*main, *(container for container in own if container["name"] != component.main_container)]
    main = [_over(fill(recipe.container, metadata, where=where), recipe.container_overlay, component, selection)]
    if component.runtime is not None and component.runtime.version:
        main[0]["image"] = _tagged(str(main[0].get("image", "")), component.runtime.version)
    others = {c["name"]: c for c in fill(list(recipe.pod.get("containers", ())), metadata, where=where)}
    for container in own:
        if container["name"] == main[0]["name"]:
            main[0] = merge(main[0], container)
        else:
            others[container["name"]] = merge(others.get(container["name"], {}), container)
    return [*main, *others.values()]


def _equipped(container: Manifest, component: Component, added: Storage, *, is_main: bool, answers: bool) -> Manifest:
    made = dict(container)
    if is_main:
        told = {**component.env, **(held.MAIN_VARIABLES if component.held is not None else {})}
        promised = [{"name": name, "value": value} for name, value in told.items()]
        made["env"] = merge({"env": promised}, {"env": made.get("env", [])})["env"]
        made.setdefault("imagePullPolicy", "IfNotPresent")
        if flags := [f"--{flag}={value}" for flag, value in component.flags.items() if given(made, flag) is None]:
            made["args"] = [*(made.get("args") or ()), *flags]
        if component.default_resources:
            made["resources"] = _with_defaults(made.get("resources") or {}, component.default_resources)
        if answers:
            made.setdefault("readinessProbe", _probe(made))
        for name in _PROBES & made.keys():
            made[name] = _with_port(made[name], _port(made))
    if added.mounts and (is_main or made["name"] in _READS_MODEL):
        taken = {mount["mountPath"] for mount in made.get("volumeMounts", ())}
        mounts = [mount for mount in added.mounts if mount["mountPath"] not in taken]
        made["volumeMounts"] = [*made.get("volumeMounts", ()), *mounts]
    return made


def given(container: Manifest, flag: str) -> str | None:
    """Return what a container's own words say of a flag, ``_`` or ``-`` in its name; None where they do not."""
    words = [str(word) for field in ("command", "args") for word in container.get(field) or ()]
    found = None
    for word, behind in pairwise((*words, "")):
        name, equals, value = word.partition("=")
        if name.startswith("--") and name[2:].replace("-", "_") == flag:
            found = value if equals else behind
    return found


def _with_defaults(resources: Manifest, defaults: Mapping[str, str]) -> Manifest:
    """Return resources with those of ``defaults`` that are not named, as much asked for as allowed."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    added = {name: quantity for name, quantity in defaults.items() if name not in limits and name not in requests}
    return {**resources, "limits": {**limits, **added}, "requests": {**requests, **added}} if added else resources


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
