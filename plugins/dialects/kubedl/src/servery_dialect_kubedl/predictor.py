"""One entry of ``spec.predictors``: what is wrong with it, and what it means."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from servery_sdk import names, quantities
from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.lenient import mapping, mappings, text
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, Batching, Component, ComponentKind, Scaling

from servery_dialect_kubedl import server, version
from servery_dialect_kubedl.kinds import (
    GRPC_PORT,
    HTTP_PORT,
    INFERENCE_LABEL,
    LOADER,
    MAIN_CONTAINER,
    MODEL_DIRECTORY,
    PREDICTOR_LABEL,
    VERSION_LABEL,
    WEIGHTS,
)

_SCALERS = {
    "": AutoscalerClass.HPA,
    "HorizontalPodAutoscaler": AutoscalerClass.HPA,
    "ScaledObject": AutoscalerClass.KEDA,
}
_VERSION_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


class Predictor:
    """Reads one predictor. Its errors come before its values, so the errors take anything.

    Args:
        inference: Name of the Inference.
        framework: Of all its predictors.
        spec: The entry.
        path: Of the entry.
        found: The ModelVersion that it names, None where that is not there.
    """

    def __init__(self, inference: str, framework: str, spec: Manifest, path: str, found: Manifest | None) -> None:
        self._inference, self.spec, self._path, self._found = inference, spec, path, found
        self._server = server.SERVERS.get(framework)
        self.name = text(spec, "name")
        self._pod = mapping(mapping(spec, "template"), "spec")
        self._containers = list(mappings(self._pod, "containers"))
        self._version = text(spec, "modelVersion")
        self._model_path = text(spec, "modelPath")

    @property
    def weight(self) -> int | None:
        """The weight in its first spelling, None where nobody gives one."""
        return next((self.spec[spelled] for spelled in WEIGHTS if _is_integer(self.spec.get(spelled))), None)

    @property
    def _main(self) -> Manifest:
        """The container that answers requests."""
        named = (container for container in self._containers if container.get("name") == MAIN_CONTAINER)
        return next(named, self._containers[0])

    def errors(self) -> Iterator[FieldError]:
        """Yield what the schema does not say."""
        if self.name and (wrong := names.objection(f"i-{self.name}", f"{self._path}.name")) is not None:
            yield replace(wrong, value=self.name)
        elif self.spec.get("name") == "":
            yield FieldError(path=f"{self._path}.name", kind=FieldErrorKind.REQUIRED)
        yield from self._weight_errors()
        yield from self._scaling_errors()
        yield from self._model_errors()
        template = f"{self._path}.template.spec"
        if self._pod.get("containers") == []:
            yield FieldError(path=f"{template}.containers", kind=FieldErrorKind.REQUIRED)
        given = self._pod.get("containers")
        for index, container in enumerate(given if isinstance(given, list) else ()):
            if isinstance(container, dict):
                yield from _container_errors(container, f"{template}.containers[{index}]")
        yield from self._port_errors(template)
        yield from self._name_errors(template)

    def _weight_errors(self) -> Iterator[FieldError]:
        given = [spelled for spelled in WEIGHTS if _is_integer(self.spec.get(spelled))]
        for spelled in given[1:]:
            if self.spec[spelled] != self.spec[given[0]]:
                detail = f"{given[0]} says {self.spec[given[0]]}, and they are one field"
                yield _invalid(f"{self._path}.{spelled}", self.spec[spelled], detail)

    def _scaling_errors(self) -> Iterator[FieldError]:
        scale, path = mapping(self.spec, "autoScale"), f"{self._path}.autoScale"
        fewest, most = scale.get("minReplicas"), scale.get("maxReplicas")
        if isinstance(fewest, int) and isinstance(most, int) and most < fewest:
            yield _invalid(f"{path}.maxReplicas", most, f"must be greater than or equal to minReplicas ({fewest})")
        scaler = mapping(scale, "autoScaler")
        if not text(scaler, "name") and text(scaler, "kind") not in _SCALERS:
            yield unsupported(f"{path}.autoScaler.kind", scaler["kind"], filter(None, _SCALERS))

    def _model_errors(self) -> Iterator[FieldError]:
        path = f"{self._path}.modelVersion"
        if self._version and not _VERSION_NAME.fullmatch(self._version):
            detail = "must consist of lower case letters, digits, '-' or '.', and start and end with a letter or digit"
            yield _invalid(path, self._version, detail)
        elif self._found is not None:
            for objection in version.objections(self._found):
                yield _invalid(path, self._version, f"ModelVersion {self._version}: {objection}")
        yield from self._mount_errors()
        asked = self._model_path
        if asked and (not asked.startswith("/") or not asked.strip("/") or ".." in asked.split("/")):
            detail = "must be an absolute directory other than '/', without '..'"
            yield _invalid(f"{self._path}.modelPath", asked, detail)

    def _mount_errors(self) -> Iterator[FieldError]:
        if not self._version or not self._containers:
            return
        model = posixpath.normpath(self._model_path or f"{MODEL_DIRECTORY}/{self._version}")
        index = self._pod["containers"].index(self._main)
        mounts = self._main.get("volumeMounts")
        for number, mount in enumerate(mounts if isinstance(mounts, list) else ()):
            if isinstance(mount, dict) and posixpath.normpath(text(mount, "mountPath") or "/") == model:
                path = f"{self._path}.template.spec.containers[{index}].volumeMounts[{number}].mountPath"
                detail = f"the model of modelVersion {self._version} is mounted here; say another modelPath"
                yield _invalid(path, mount["mountPath"], detail)

    def _port_errors(self, template: str) -> Iterator[FieldError]:
        """Yield the ports whose numbers the Service has for others."""
        if self._server is None or not self._containers:
            return
        index, answering = self._pod["containers"].index(self._main), self._ports
        exposed = dict(zip((HTTP_PORT, GRPC_PORT), answering, strict=False))
        ports = self._main.get("ports")
        for number, port in enumerate(ports if isinstance(ports, list) else ()):
            found = port.get("containerPort") if isinstance(port, dict) else None
            if server.is_port(found) and found in exposed and found not in answering:
                path = f"{template}.containers[{index}].ports[{number}].containerPort"
                yield _invalid(path, found, f"the predictor's Service leads its {found} to port {exposed[found]}")

    def _name_errors(self, template: str) -> Iterator[FieldError]:
        for field in ("containers", "initContainers", "volumes"):
            # The model's own names are taken where there is a model.
            taken = {LOADER} if self._version and field != "containers" else set()
            given = self._pod.get(field)
            for index, item in enumerate(given if isinstance(given, list) else ()):
                name = text(item, "name") if isinstance(item, dict) else ""
                if name in taken:
                    path = f"{template}.{field}[{index}].name"
                    yield FieldError(path=path, kind=FieldErrorKind.DUPLICATE, value=name)
                taken = taken | {name} - {""}

    def component(self, percent: int) -> Component:
        """Return what it means, ``percent`` of the requests being its own."""
        labels = {INFERENCE_LABEL: self._inference, PREDICTOR_LABEL: self.name}
        metadata = mapping(mapping(self.spec, "template"), "metadata")
        own = {**labels, VERSION_LABEL: names.shortened(self._version)} if self._version else labels
        return Component(
            kind=ComponentKind.PREDICTOR,
            name=self.name,
            object_name=f"{self._inference}-{self.name}",
            main_container=self._main["name"],
            pod=self._equipped(),
            labels={**_texts(metadata, "labels"), **own},
            annotations=_texts(metadata, "annotations"),
            # Without the version, which KubeDL selects by as well: a Deployment's selector can never change.
            selector=labels,
            env=self._env(),
            scaling=self._scaling(),
            batching=self._batching(),
            field_path=self._path,
            traffic_percent=percent,
            exposed_as=(HTTP_PORT, GRPC_PORT)[: len(self._ports)],
            spoken_ports=frozenset(self._ports),
        )

    @property
    def _ports(self) -> tuple[int, ...]:
        assert self._server is not None
        return server.ports(self._main, self._server)

    @property
    def _files(self) -> version.Files | None:
        return version.files(self._found, self._version) if self._version else None

    @property
    def _directories(self) -> tuple[str, ...]:
        """Where the model is in the container, the directory that KubeDL promises first; none without a model."""
        if not self._version or self._model_path:
            return (posixpath.normpath(self._model_path),) if self._model_path else ()
        assert self._server is not None
        promised = f"{MODEL_DIRECTORY}/{self._version}"
        told = server.looks_into(self._main, self._server, version.model_name(self._found))
        if told is None or _is_below(told, promised) or any(_is_below(told, taken) for taken in self._taken):
            return (promised,)
        assert self._files is not None
        # A mount below another needs a directory there, which only the pod's own volume can be given.
        return (promised, told) if self._files.loader is not None else (told,)

    @property
    def _taken(self) -> list[str]:
        return [text(mount, "mountPath") for mount in mappings(self._main, "volumeMounts")]

    def _env(self) -> dict[str, str]:
        if not self._directories:
            return {}
        model, path = version.model_name(self._found), self._directories[0]
        env = {"KUBEDL_MODEL_PATH": path}
        if self._server is server.SERVERS["TFServing"]:
            env["MODEL_BASE_PATH"] = posixpath.dirname(path)
            if model:
                env["MODEL_NAME"] = model
        return env

    def _equipped(self) -> Manifest:
        """Return the pod with the model in it, its ports in the order of the Service's."""
        pod = {key: value for key, value in self._pod.items() if value is not None}
        main = {**self._main, "ports": server.ordered(self._main, self._ports)}
        if (files := self._files) is not None:
            mounts: list[Json] = [
                {"name": LOADER, "mountPath": path, **({} if files.loader else {"readOnly": True})}
                for path in self._directories
            ]
            main["volumeMounts"] = [*(main.get("volumeMounts") or ()), *mounts]
            pod["volumes"] = [*pod.get("volumes", ()), files.volume]
            if files.loader is not None:
                pod["initContainers"] = [*pod.get("initContainers", ()), files.loader]
            if files.node:
                pod["nodeSelector"] = {**pod.get("nodeSelector", {}), **files.node}
        pod["containers"] = [
            {key: value for key, value in (main if container is self._main else container).items() if value is not None}
            for container in self._containers
        ]
        return pod

    def _scaling(self) -> Scaling:
        replicas, scale = self.spec.get("replicas"), self.spec.get("autoScale")
        first = 1 if replicas is None else replicas
        if scale is None:
            return Scaling(min_replicas=first, autoscaler_class=AutoscalerClass.NONE)
        scaler = mapping(scale, "autoScaler")
        fewest = 1 if scale.get("minReplicas") is None else scale["minReplicas"]
        return Scaling(
            min_replicas=fewest,
            max_replicas=scale.get("maxReplicas") or max(fewest, first),
            initial_replicas=replicas,
            autoscaler_class=AutoscalerClass.EXTERNAL if text(scaler, "name") else _SCALERS[text(scaler, "kind")],
        )

    def _batching(self) -> Batching | None:
        found = self.spec.get("batching")
        if found is None:
            return None
        return Batching(max_batch_rows=found["batchSize"], max_latency_seconds=found.get("timeoutSeconds"))

    def defaults(self, percent: int) -> Iterator[str]:
        """Yield what was decided where the manifest leaves it open, for ``servery explain``."""
        if self.spec.get("replicas") is None and self.spec.get("autoScale") is None:
            yield f"{self._path}.replicas: 1 (KubeDL's default)"
        if self.weight not in {None, percent}:
            yield f"{self._path}.trafficWeight: {self.weight} is {percent} % of all weights"
        if (files := self._files) is not None:
            yield f"{self._path}.modelVersion: {files.origin}, at {' and '.join(self._directories)}"
        numbers = " and ".join(map(str, self._ports))
        yield f"{self._path}.template: container {self._main['name']} answers at {numbers} (flags, then declared ports)"

    def warnings(self) -> Iterator[str]:
        """Yield what is accepted, but hardly meant."""
        scaling, replicas = self._scaling(), self.spec.get("replicas")
        fewest, most = scaling.min_replicas, scaling.max_replicas
        if replicas is not None and most is not None and not fewest <= replicas <= most:
            path = f"{self._path}.replicas"
            yield f"{path}: {replicas} is outside autoScale's {fewest} to {most}, to which the autoscaler brings it"


def _container_errors(container: Manifest, path: str) -> Iterator[FieldError]:
    for field in ("name", "image"):
        if not container.get(field):
            yield FieldError(path=f"{path}.{field}", kind=FieldErrorKind.REQUIRED)
    yield from quantities.resource_errors(container.get("resources"), f"{path}.resources")


def _is_below(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _texts(metadata: Manifest, field: str) -> dict[str, str]:
    return {key: value for key, value in (metadata.get(field) or {}).items() if value is not None}


def _invalid(path: str, value: Json, detail: str) -> FieldError:
    return FieldError(path=path, kind=FieldErrorKind.INVALID, value=value, detail=detail)
