"""What a model must be before it is placed: each policy looks at the whole of it, and refuses it or not."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from servery_sdk.errors import Permanent

from servery_storage.settings import Formats, PicklePolicy, Settings, SignaturePolicy


class Refused(Permanent):
    """A policy refuses the model; says which file, and why."""


class Policy(Protocol):
    """A rule for models."""

    @property
    def terms(self) -> str:
        """What it depends on: a model that was let through is looked at again where this differs."""

    def check(self, root: Path) -> None:
        """Look at the model below ``root``; some take files of it away.

        Raises:
            Refused: The model is not to be served.
        """


def of(settings: Settings) -> Sequence[Policy]:
    """Return what the settings ask for, in order: who signed a model signed all of it."""
    found: list[Policy] = []
    if settings.signature_policy is SignaturePolicy.REQUIRE:
        try:
            signatures = import_module("servery_storage.signatures")  # by name: it is what the extra is for
        except ModuleNotFoundError as error:
            raise Refused(
                f"SERVERY_STORAGE_SIGNATURE_POLICY is require, and {error.name} is not installed: install "
                "servery-storage-initializer[signatures]"
            ) from error
        found.append(cast("Policy", signatures.Signatures.of(settings)))
    if settings.formats is Formats.SAFETENSORS:
        from servery_storage.formats import SafetensorsOnly

        found.append(SafetensorsOnly())
    if settings.pickle_policy is not PicklePolicy.OFF:
        from servery_storage.pickles import Pickles

        found.append(Pickles(settings.pickle_policy))
    return found
