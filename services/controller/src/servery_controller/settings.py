"""What the controller can be told. Precedence: flag, environment ``SERVERY_CONTROLLER_<FIELD>``, file, default."""

from __future__ import annotations

import os
import shlex
import socket
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, FilePath, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)
from servery_sdk.model import RouteParent
from servery_sdk.plugins import Plugins

from servery_controller.planning import PlanningSettings

_STORAGE = "SERVERY_STORAGE_"
_MAX_CONTENT_BYTES = 64 * 1024
"""Linux takes 128 KiB for one variable, etcd 1.5 MiB for a pod with all that it has."""


def pod_namespace() -> str:
    """``POD_NAMESPACE``, or else ``servery-system``."""
    return os.environ.get("POD_NAMESPACE") or "servery-system"


def pod_name() -> str:
    """``POD_NAME``, or else the host's name."""
    return os.environ.get("POD_NAME") or socket.gethostname()


class Settings(BaseSettings):
    """Make InferenceServices what their manifests say."""

    model_config = SettingsConfigDict(
        env_prefix="SERVERY_CONTROLLER_",
        frozen=True,
        use_attribute_docstrings=True,
        cli_prog_name="servery-controller",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    config: FilePath | None = None
    """YAML file of these settings, a key a field."""

    kubeconfig: str | None = None
    """Path; a pod's own account where none is given."""

    default_mode: str = "raw"
    """Mode of services that ask for none."""

    ingress_domain: str = "example.com"
    """Under which services have hosts."""

    url_scheme: str = "http"
    """Of ``status.url``."""

    cluster_domain: str = "cluster.local"
    """DNS domain of the cluster."""

    gateway: str = "kserve/kserve-ingress-gateway"
    """``namespace/name`` of the Gateway that routes hang on."""

    ingress_class: str | None = None
    """Class of Ingresses where there is no Gateway API."""

    storage_image: str | None = None
    """Image of the storage initializer; the release's where none is given."""

    storage_cache: str = ""
    """Directory of each node where fetched objects are kept for the node's other pods, which must be theirs to write
    (`install -d -m 0777`); empty keeps none."""

    storage_cache_bytes: int = 0
    """Of all objects that a node keeps; the least recently used go first. 0 is no bound."""

    storage_settings: str = ""
    """Settings of every storage initializer, which no service changes, such as
    ``SERVERY_STORAGE_PICKLE_POLICY=refuse SERVERY_STORAGE_FORMATS=safetensors``. Behind ``=@`` stands a file of the
    controller's, read when it starts: ``SERVERY_STORAGE_SIGNATURE_KEY=@/etc/servery/signers/models.pub``."""

    agent_image: str | None = None
    """Image of the agent beside components that need one; the release's where none is given."""

    assignments_port: int = 8082
    """Port where agents are told which models their pods hold."""

    assignments_address: str | None = None
    """``host:port`` of it, as agents reach it; the installation's own Service where none is given."""

    assignments_audience: str = "servery-controller"
    """Agents' service account tokens are made for it and looked at by the API server; empty believes anybody."""

    workers: int = 4
    """Services worked on at once."""

    http_port: int = 8081
    """Port of health, metrics and admission."""

    tls_cert: Path | None = None
    """Certificate of the admission endpoint; plain HTTP where none is given."""

    tls_key: Path | None = None
    """Key of ``tls_cert``."""

    lease_namespace: str = Field(default_factory=pod_namespace)
    """Namespace of the leader's lease."""

    identity: str = Field(default_factory=pod_name)
    """Of this process among its replicas."""

    lease_seconds: float = 15.0
    """How long a silent leader is still believed."""

    @field_validator("storage_settings")
    @classmethod
    def _are_variables(cls, value: str) -> str:
        _variables(value)
        return value

    def planning(self, plugins: Plugins) -> PlanningSettings:
        """Return the part that planning reads."""
        namespace, _, name = self.gateway.partition("/")
        schemes = frozenset(s for provider in plugins.storage_providers.values() for s in provider.schemes)
        defaults = PlanningSettings()
        return PlanningSettings(
            default_mode=self.default_mode,
            ingress_domain=self.ingress_domain,
            url_scheme=self.url_scheme,
            cluster_domain=self.cluster_domain,
            route_parent=RouteParent(gateway_namespace=namespace, gateway_name=name, ingress_class=self.ingress_class),
            storage_schemes=schemes or defaults.storage_schemes,
            storage_image=self.storage_image or defaults.storage_image,
            storage_cache=self.storage_cache,
            storage_cache_bytes=self.storage_cache_bytes,
            storage_env=_variables(self.storage_settings),
            agent_image=self.agent_image or defaults.agent_image,
            assignments_address=self.assignments_address
            or f"servery-controller.{self.lease_namespace}.svc:{self.assignments_port}",
            assignments_audience=self.assignments_audience,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return where settings come from, what counts most first; flags come before all of it."""
        return init_settings, env_settings, _ConfigFile(settings_cls, {})


def _variables(text: str) -> dict[str, str]:
    """Return the variables that ``text`` sets, as a shell reads it.

    Raises:
        ValueError: It sets another variable than the storage initializer's, or none.
    """
    found = {}
    for word in shlex.split(text):
        name, sign, value = word.partition("=")
        if not sign or not name.startswith(_STORAGE):
            raise ValueError(
                f"{word!r} is no setting of the storage initializer, such as {_STORAGE}FORMATS=safetensors"
            )
        found[name] = _content(value) if value.startswith("@") else value
    return found


def _content(value: str) -> str:
    """Return the text of the file behind the sign. Pods get the text itself: a ConfigMap beside them could be changed by
    whoever deploys models there, and with it whose signatures are taken.

    Raises:
        ValueError: There is no such file, or it is no text of a size for a variable.
    """
    path = Path(value.removeprefix("@"))
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{value!r}: {error}") from error
    if len(text.encode()) > _MAX_CONTENT_BYTES:
        raise ValueError(f"{value!r} has more than {_MAX_CONTENT_BYTES} bytes")
    return text


class _ConfigFile(InitSettingsSource):
    """The file that ``config`` names; what comes before it has said so by then."""

    def __call__(self) -> dict[str, Any]:
        path = self.current_state.get("config")
        if path is None:
            return {}
        try:
            return YamlConfigSettingsSource(self.settings_cls, Path(path))()
        except Exception as error:
            # Whatever the reader stumbles on, it is the file that is wrong.
            raise SettingsError(f"--config {path}: not a YAML mapping of settings: {error}") from error


def load(arguments: Sequence[str]) -> Settings:
    """Return the settings; what is wrong with a flag, a variable or the file goes to stderr, and then exit 2."""
    flags = CliSettingsSource[ArgumentParser](Settings)
    try:
        return CliApp.run(Settings, list(arguments), cli_settings_source=flags)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}; found {e['input']!r}" for e in error.errors())
        flags.root_parser.error("; ".join(wrong))
    except SettingsError as error:
        flags.root_parser.error(str(error))
