"""What a service account's secrets give to the storage initializer: variables and files, never values.

Source: KServe pkg/credentials (CreateSecretVolumeAndEnv): a secret's type follows from its keys.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from servery_sdk import kinds
from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Catalog

GCS_KEY = "gcloud-application-credentials.json"
GCS_MOUNT = "/var/secrets/"
GCS_VOLUME = "user-gcp-sa"

_S3_KEYS = (
    ("AWS_ACCESS_KEY_ID", ("AWS_ACCESS_KEY_ID", "awsAccessKeyID")),
    ("AWS_SECRET_ACCESS_KEY", ("AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey")),
)
_S3_ANNOTATIONS = {
    "serving.kserve.io/s3-endpoint": "S3_ENDPOINT",
    "serving.kserve.io/s3-usehttps": "S3_USE_HTTPS",
    "serving.kserve.io/s3-verifyssl": "S3_VERIFY_SSL",
    "serving.kserve.io/s3-region": "AWS_DEFAULT_REGION",
    "serving.kserve.io/s3-usevirtualbucket": "S3_USER_VIRTUAL_BUCKET",
    "serving.kserve.io/s3-useaccelerate": "S3_USE_ACCELERATE",
    "serving.kserve.io/s3-useanoncredential": "awsAnonymousCredential",
    "serving.kserve.io/s3-cabundle": "AWS_CA_BUNDLE",
    "serving.kserve.io/s3-cabundle-configmap": "AWS_CA_BUNDLE_CONFIGMAP",
}
CA_MOUNT = "/etc/ssl/custom-certs"
CA_VOLUME = "cabundle-cert"

_AZURE_KEYS = (
    ("AZURE_SUBSCRIPTION_ID", ("AZURE_SUBSCRIPTION_ID", "AZ_SUBSCRIPTION_ID")),
    ("AZURE_TENANT_ID", ("AZURE_TENANT_ID", "AZ_TENANT_ID")),
    ("AZURE_CLIENT_ID", ("AZURE_CLIENT_ID", "AZ_CLIENT_ID")),
    ("AZURE_CLIENT_SECRET", ("AZURE_CLIENT_SECRET", "AZ_CLIENT_SECRET")),
    ("AZURE_STORAGE_ACCESS_KEY", ("AZURE_STORAGE_ACCESS_KEY",)),
    ("AZURE_ACCESS_TOKEN", ("AZURE_ACCESS_TOKEN",)),
)

_VARIABLES = (
    "HF_TOKEN",
    "HF_ENDPOINT",
    "MODELSCOPE_API_TOKEN",
    "MODELSCOPE_ENDPOINT",
    "GIT_USERNAME",
    "GIT_PASSWORD",
    "GIT_TOKEN",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""Keys that are variables of the same name. KServe takes the tokens alone; a hub of one's own is said beside its."""

HDFS_KEY, HDFS_MOUNT, HDFS_VOLUME = "HDFS_NAMENODE", "/var/secrets/kserve-hdfscreds", "hdfs-secrets"
OCI_KEY, OCI_MOUNT, OCI_VOLUME = ".dockerconfigjson", "/mnt/oci-fetch-auth", "oci-fetch-auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Parts of the storage initializer and its pod."""

    env: tuple[Manifest, ...] = ()
    volumes: tuple[Manifest, ...] = ()
    mounts: tuple[Manifest, ...] = ()


def credentials(catalog: Catalog, account: ObjectRef) -> Credentials:
    """Return what the secrets of ``account`` give; secrets of no known type give nothing."""
    listed = (catalog.objects.get(account) or {}).get("secrets") or ()
    refs = [ObjectRef(kinds.SECRET, account.namespace, secret.get("name", "")) for secret in listed]
    secrets = [catalog.objects[ref] for ref in refs if ref in catalog.objects]
    env = [
        variable for secret in secrets for variable in (*_s3(secret), *_named(secret), *_azure(secret), *_https(secret))
    ]
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    bundle = next((variable["value"] for variable in env if variable["name"] == "AWS_CA_BUNDLE_CONFIGMAP"), None)
    if bundle is not None:
        file = next((variable["value"] for variable in env if variable["name"] == "AWS_CA_BUNDLE"), "")
        mount = posixpath.dirname(str(file)) or CA_MOUNT
        env.append({"name": "CA_BUNDLE_CONFIGMAP_NAME", "value": bundle})
        env.append({"name": "CA_BUNDLE_VOLUME_MOUNT_POINT", "value": mount})
        volumes.append({"name": CA_VOLUME, "configMap": {"name": bundle}})
        mounts.append({"name": CA_VOLUME, "mountPath": mount, "readOnly": True})
    if (hdfs := _holder(secrets, HDFS_KEY)) is not None:
        volumes.append({"name": HDFS_VOLUME, "secret": {"secretName": hdfs}})
        mounts.append({"name": HDFS_VOLUME, "mountPath": HDFS_MOUNT, "readOnly": True})
    if (oci := _holder(secrets, OCI_KEY)) is not None:
        items: list[Json] = [{"key": OCI_KEY, "path": "config.json"}]
        env.append({"name": "KSERVE_OCI_DOCKER_CONFIG", "value": f"{OCI_MOUNT}/config.json"})
        volumes.append({"name": OCI_VOLUME, "secret": {"secretName": oci, "items": items}})
        mounts.append({"name": OCI_VOLUME, "mountPath": OCI_MOUNT, "readOnly": True})
    gcs = _holder(secrets, GCS_KEY)
    if gcs is not None:
        env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{GCS_MOUNT}{GCS_KEY}"})
        volumes.append({"name": GCS_VOLUME, "secret": {"secretName": gcs}})
        mounts.append({"name": GCS_VOLUME, "mountPath": GCS_MOUNT, "readOnly": True})
    return Credentials(env=tuple(env), volumes=tuple(volumes), mounts=tuple(mounts))


def _holder(secrets: Sequence[Manifest], key: str) -> str | None:
    """Return the name of the first secret with ``key``."""
    return next((secret["metadata"]["name"] for secret in secrets if key in (secret.get("data") or {})), None)


def _s3(secret: Manifest) -> Iterator[dict[str, Json]]:
    data, metadata = secret.get("data") or {}, secret["metadata"]
    keys = {name: next((key for key in spellings if key in data), None) for name, spellings in _S3_KEYS}
    if None in keys.values():
        return
    for name, key in keys.items():
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": metadata["name"], "key": key}}}
    annotations = metadata.get("annotations") or {}
    for annotation, name in _S3_ANNOTATIONS.items():
        if annotation in annotations:
            yield {"name": name, "value": str(annotations[annotation])}


def _named(secret: Manifest) -> Iterator[dict[str, Json]]:
    for key in _VARIABLES:
        if key in (secret.get("data") or {}):
            yield {"name": key, "valueFrom": {"secretKeyRef": {"name": secret["metadata"]["name"], "key": key}}}


def _azure(secret: Manifest) -> Iterator[dict[str, Json]]:
    data = secret.get("data") or {}
    for name, spellings in _AZURE_KEYS:
        key = next((key for key in spellings if key in data), None)
        if key is not None:
            yield {"name": name, "valueFrom": {"secretKeyRef": {"name": secret["metadata"]["name"], "key": key}}}


def _https(secret: Manifest) -> Iterator[dict[str, Json]]:
    """Yield the headers of a host, as they are written in the secret: KServe writes them into the pod instead."""
    data = secret.get("data") or {}
    if "https-host" in data and "headers" in data:
        host = base64.b64decode(data["https-host"]).decode(errors="replace").strip()
        ref = {"name": secret["metadata"]["name"], "key": "headers"}
        yield {"name": f"{host}-headers", "valueFrom": {"secretKeyRef": ref}}
