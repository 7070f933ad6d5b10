"""The plan's pod as Knative takes it: one port, no volume without a mount, and only the fields that its webhook lets by.

Fields that need a flag in Knative's ConfigMap ``config-features`` are passed on; docs/how-to/choose-a-mode.md lists them.

Source: knative.dev/serving pkg/apis/serving/fieldmask.go and k8s_validation.go.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from servery_sdk import objects
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Port, Workload

Mask: TypeAlias = Mapping[str, "Mask"]
"""Fields that are let by, and those below them; an empty one lets all by."""

_ALL: Mask = {}


def _fields(*names: str, **deeper: Mask) -> Mask:
    return {**dict.fromkeys(names, _ALL), **deeper}


_PROBE = _fields(
    "exec",
    "grpc",
    "httpGet",
    "tcpSocket",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
)
_CONTAINER = _fields(
    "name",
    "args",
    "command",
    "envFrom",
    "workingDir",
    "image",
    "imagePullPolicy",
    "terminationMessagePath",
    "terminationMessagePolicy",
    env=_fields("name", "value", valueFrom=_fields("configMapKeyRef", "secretKeyRef", "fieldRef", "resourceFieldRef")),
    ports=_fields("name", "containerPort", "protocol"),
    resources=_fields("limits", "requests"),
    securityContext=_fields(
        "allowPrivilegeEscalation",
        "capabilities",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsNonRoot",
        "runAsUser",
        "seccompProfile",
    ),
    volumeMounts=_fields("name", "mountPath", "mountPropagation", "readOnly", "subPath"),
)
_POD = _fields(
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "imagePullSecrets",
    "nodeSelector",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "serviceAccountName",
    "shareProcessNamespace",
    "tolerations",
    "topologySpreadConstraints",
    initContainers=_CONTAINER,
    containers={**_CONTAINER, "livenessProbe": _PROBE, "readinessProbe": _PROBE, "startupProbe": _PROBE},
    securityContext=_fields(
        "fsGroup", "runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile", "supplementalGroups"
    ),
    volumes=_fields(
        "name",
        "configMap",
        "csi",
        "emptyDir",
        "ephemeral",
        "hostPath",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ),
)

_POD_DEFAULTS: Manifest = {
    "dnsPolicy": "ClusterFirst",
    "hostIPC": False,
    "hostNetwork": False,
    "hostPID": False,
    "restartPolicy": "Always",
    "schedulerName": "default-scheduler",
    "securityContext": {},
    "shareProcessNamespace": False,
    # Knative gives a pod as long as one request may take.
    "terminationGracePeriodSeconds": 30,
}
"""What Kubernetes does anyway. Saying it may need a flag, or is not allowed at all."""

_CONTAINER_DEFAULTS: Manifest = {"stdin": False, "stdinOnce": False, "tty": False}
_SECURITY_DEFAULTS: Manifest = {"privileged": False}

_OF_CONTAINERS = frozenset({"runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile"})

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_TAKES_CONNECTIONS: Manifest = {
    "initialDelaySeconds": 0,
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}
_WRITABLE = frozenset({"emptyDir", "persistentVolumeClaim", "hostPath", "csi", "ephemeral"})

_QUEUE_PROXY_METRICS_PORT = 9091
_H2C, _HTTP1 = _PORT_NAMES = ("h2c", "http1")
_RESERVED_PORTS = frozenset({8008, 8012, 8013, 8022, 8112, 9090, 9091})
_RESERVED_PATHS = frozenset({"/", "/dev", "/dev/log"})
_RESERVED_NAMES = frozenset({"queue-proxy"})
_RESERVED_VARIABLES = frozenset({"K_SERVICE", "K_CONFIGURATION", "K_REVISION"})


def pod(workload: Workload) -> Manifest:
    """Return the PodSpec of the revision's template."""
    spec = _without(objects.pod_spec(workload), _POD_DEFAULTS)
    if account := spec.pop("serviceAccount", None):
        # The name that the field had before Kubernetes 1.0.
        spec.setdefault("serviceAccountName", account)
    containers: Sequence[Manifest] = spec["containers"]
    front = _front(containers, workload)
    ports = _named_ports(containers)
    spec["containers"] = [
        _container(_with_queue_proxy(container, workload), ports, workload if container is front else None)
        for container in containers
    ]
    if "initContainers" in spec:
        spec["initContainers"] = [_container(container, ports, None) for container in spec["initContainers"]]
    return _with_volumes(_secured(spec))


def objections(workload: Workload) -> Iterator[str]:
    """Yield what the pod asks for and Knative lets nobody say, each by its field."""
    spec = pod(workload)
    for path in _outside(spec, _POD):
        yield f"{path}: Knative does not let it be set"
    yield from _port_objections(workload)
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        yield from _reserved(container)


def _port_objections(workload: Workload) -> Iterator[str]:
    containers, chosen = workload.pod["containers"], _port(workload).target_port
    front = _front(containers, workload)
    declared = front.get("ports") or ()
    others = [port.target_port for port in workload.ports if port.asked and port.target_port != chosen]
    if others:
        listed = ", ".join(map(str, others))
        yield (
            f"container {front['name']}: ports {listed} beside {chosen}: Knative leads requests to one port; "
            "the one that is named h2c or http1 is taken, or the first"
        )
    if any(port.get("protocol", "TCP") != "TCP" for port in declared):
        yield f"container {front['name']}: Knative leads requests to TCP ports alone"
    if any("hostPort" in port for container in containers for port in container.get("ports") or ()):
        yield "ports[].hostPort: Knative does not let it be set"
    if chosen in _RESERVED_PORTS:
        yield f"port {chosen}: Knative's own proxy listens there; let the server listen elsewhere"


def _reserved(container: Manifest) -> Iterator[str]:
    name = container["name"]
    if name in _RESERVED_NAMES:
        yield f"container {name}: Knative has one of that name"
    taken = _RESERVED_VARIABLES | ({"PORT"} if container.get("ports") else set())
    for variable in container.get("env") or ():
        if variable.get("name") in taken:
            yield f"container {name}: variable {variable['name']}: Knative sets it"
    for mount in container.get("volumeMounts") or ():
        if mount.get("mountPath") in _RESERVED_PATHS:
            yield f"container {name}: mountPath {mount['mountPath']}: Knative does not let anything be mounted there"


def _outside(value: Json, mask: Mask, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that ``mask`` does not have."""
    if isinstance(value, list | tuple):
        for item in value:
            label = f"[{item['name']}]" if isinstance(item, Mapping) and "name" in item else "[]"
            yield from _outside(item, mask, f"{path}{label}")
    elif isinstance(value, Mapping) and mask:
        for key, inner in value.items():
            at = f"{path}.{key}" if path else key
            if key in mask:
                yield from _outside(inner, mask[key], at)
            else:
                yield at


def _without(given: Manifest, defaults: Manifest) -> dict[str, Json]:
    """Return the fields that say something."""
    return {
        key: value
        for key, value in given.items()
        if value is not None and not (key in defaults and value == defaults[key])
    }


def _port(workload: Workload) -> Port:
    """Return the port that requests come to: the one with a name of Knative's, as in manifests for it, or the first."""
    named = [port for port in workload.ports if port.name in _PORT_NAMES]
    return named[0] if len(named) == 1 else workload.ports[0]


def _front(containers: Sequence[Manifest], workload: Workload) -> Manifest:
    """Return the container that requests come to: the one whose port it is, or the first."""
    wanted = _port(workload).target_port
    for container in containers:
        if any(port.get("containerPort") == wanted for port in container.get("ports") or ()):
            return container
    return containers[0]


def _named_ports(containers: Sequence[Manifest]) -> Mapping[str, int]:
    return {
        port["name"]: port["containerPort"]
        for container in containers
        for port in container.get("ports") or ()
        if "name" in port
    }


def _with_queue_proxy(container: Manifest, workload: Workload) -> Manifest:
    """Return a container; the one that tells all metrics tells those of the proxy as well that Knative adds to the pod."""
    if container["name"] != workload.merges_metrics:
        return container
    more = ["--queue-proxy-metrics-port", str(_QUEUE_PROXY_METRICS_PORT)]
    return {**container, "args": [*(container.get("args") or ()), *more]}


def _container(container: Manifest, ports: Mapping[str, int], front: Workload | None) -> Manifest:
    """Return a container; ``front`` is the workload where requests come to this one, which alone declares a port."""
    made = _without(container, _CONTAINER_DEFAULTS)
    made.pop("ports", None)
    if "securityContext" in made:
        made["securityContext"] = _without(made["securityContext"], _SECURITY_DEFAULTS)
    for name in _PROBES:
        if name in made:
            made[name] = _probe(made[name], ports)
    if front is not None:
        port = _port(front)
        name = _H2C if port.app_protocol is not None else _HTTP1
        made["ports"] = [{"name": name, "containerPort": port.target_port, "protocol": "TCP"}]
        # Knative does the same, and looks every few milliseconds while a pod starts.
        if _is_plain(made.get("readinessProbe"), port.target_port):
            del made["readinessProbe"]
    return made


def _probe(probe: Manifest, ports: Mapping[str, int]) -> Manifest:
    """Return a probe with its port as a number: the names that ports had are gone."""
    made = {
        key: {**value, "port": ports.get(value.get("port"), value.get("port"))}
        if key in {"httpGet", "tcpSocket"}
        else value
        for key, value in probe.items()
    }
    if "periodSeconds" not in made and ("timeoutSeconds" in made or "failureThreshold" in made):
        # Without a period, Knative takes its own and allows neither.
        made["periodSeconds"] = _TAKES_CONNECTIONS["periodSeconds"]
    return made


def _is_plain(probe: Manifest | None, port: int) -> bool:
    """Return whether a probe asks no more than that the port takes connections, as often as Kubernetes does."""
    if probe is None or probe.get("tcpSocket") != {"port": port}:
        return False
    return {**_TAKES_CONNECTIONS, **probe, "tcpSocket": None} == {**_TAKES_CONNECTIONS, "tcpSocket": None}


def _secured(spec: dict[str, Json]) -> dict[str, Json]:
    """Return a PodSpec whose containers say what they can of its security context: on the pod it needs a flag."""
    whole = spec.pop("securityContext", None) or {}
    shared = {key: value for key, value in whole.items() if key in _OF_CONTAINERS and value is not None}
    if rest := {key: value for key, value in whole.items() if key not in shared}:
        spec["securityContext"] = rest
    for group in ("initContainers", "containers"):
        if shared and group in spec:
            spec[group] = [
                # Copies: what two share, YAML would write as a reference.
                {**container, "securityContext": {**copy.deepcopy(shared), **container.get("securityContext", {})}}
                for container in spec[group]
            ]
    return spec


def _with_volumes(spec: dict[str, Json]) -> Manifest:
    """Return a PodSpec whose volumes are all mounted, and read-only where Knative wants it said."""
    volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
    for group in ("initContainers", "containers"):
        if group in spec:
            spec[group] = [_mounted(container, volumes) for container in spec[group]]
    mounts: dict[str, list[Manifest]] = {}
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        for mount in container.get("volumeMounts") or ():
            mounts.setdefault(mount["name"], []).append(mount)
    spec.pop("volumes", None)
    if used := [_volume(volume, mounts[name]) for name, volume in volumes.items() if name in mounts]:
        spec["volumes"] = used
    return spec


def _mounted(container: Manifest, volumes: Mapping[str, Manifest]) -> Manifest:
    if not container.get("volumeMounts"):
        return container
    mounts = [
        mount if _WRITABLE & volumes.get(mount["name"], {}).keys() else {**mount, "readOnly": True}
        for mount in container["volumeMounts"]
    ]
    return {**container, "volumeMounts": mounts}


def _volume(volume: Manifest, mounts: Sequence[Manifest]) -> Manifest:
    claim = volume.get("persistentVolumeClaim")
    if claim is None or not all(mount.get("readOnly") for mount in mounts):
        return volume
    # One flag less: writing to claims has its own.
    return {**volume, "persistentVolumeClaim": {**claim, "readOnly": True}}
