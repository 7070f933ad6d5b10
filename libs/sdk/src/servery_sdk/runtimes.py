"""How a runtime that runs in Servery's own predictor is described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from servery_sdk.model import ComponentKind, Option, Part, Protocol, Runtime, SupportedFormat

VERSION = "0.1.0"
"""Of the images that are built from this source."""

HTTP_PORT = 8080
GRPC_PORT = 8081
MODEL_DIR = "/mnt/models"


def predictor(
    name: str,
    *,
    model_class: str,
    formats: Iterable[SupportedFormat],
    protocols: Iterable[Protocol] = (Protocol.V1, Protocol.V2, Protocol.GRPC_V2),
    aliases: Iterable[str] = (),
    local_images: Iterable[str] = (),
    local_flags: Mapping[str, str] | None = None,
    local_programs: Iterable[str] = (),
    stand_in: str | None = None,
    options: Iterable[Option] = (),
    image: str | None = None,
    kind: ComponentKind = ComponentKind.PREDICTOR,
) -> Runtime:
    """Return the descriptor of a runtime whose model class the predictor loads.

    Args:
        name: Of the runtime plugin; the runtime object is ``servery-<name>``.
        model_class: Import string of a ``serving.Model``.
        formats: What it serves.
        protocols: That its models understand.
        aliases: Other runtimes' names that mean this one.
        local_images: Repositories of images that it stands in for on a machine without containers.
        local_flags: Flags of those images' programs that the predictor spells in another way, without dashes.
        local_programs: Last words of those images' commands.
        stand_in: Import string of what says which other runtime serves instead.
        options: What ``model_class`` takes as keywords.
        image: Where it is not ``servery/<kind>-<name>``.
        kind: Of the components that it serves.
    """
    image = image or f"servery/{kind}-{name}:{VERSION}"
    return Runtime(
        name=f"servery-{name}",
        aliases=tuple(aliases),
        formats=tuple(formats),
        protocols=frozenset(protocols),
        model_class=model_class,
        options=tuple(options),
        image=image,
        local_images=(image.rpartition(":")[0], *local_images),
        local_flags=local_flags or {},
        local_programs=tuple(local_programs),
        stand_in=stand_in,
        parts={
            kind: Part(
                container={
                    "image": image,
                    "args": [
                        f"--runtime={name}",
                        "--model_name={{.Name}}",
                        f"--model_dir={MODEL_DIR}",
                        f"--http_port={HTTP_PORT}",
                        f"--grpc_port={GRPC_PORT}",
                    ],
                    "ports": [
                        {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"},
                        {"name": "h2c", "containerPort": GRPC_PORT, "protocol": "TCP"},
                    ],
                    "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
                    "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": HTTP_PORT}, "periodSeconds": 5},
                    "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": HTTP_PORT}, "periodSeconds": 10},
                    "startupProbe": {
                        "httpGet": {"path": "/v2/health/ready", "port": HTTP_PORT},
                        "periodSeconds": 1,
                        "failureThreshold": 600,
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                        "privileged": False,
                        "readOnlyRootFilesystem": True,
                        "runAsNonRoot": True,
                    },
                    # The root file system is read-only; libraries still want somewhere to put a socket or a cache.
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
                },
                pod={
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            )
        },
    )
