"""Contract tests. Subclass the one of your plugin's kind, give it what it asks for, and pytest runs the rest.

Needs ``servery-sdk[testing]``; nothing else of the sdk imports this package.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in ("runtime", "storage", "dialect", "mode")))

from servery_sdk.testing.dialect import DialectContract, WrongManifest  # noqa: E402  # after the asserts are rewritten
from servery_sdk.testing.mode import ModeContract  # noqa: E402
from servery_sdk.testing.plans import deployment_plans  # noqa: E402
from servery_sdk.testing.runtime import RuntimeContract  # noqa: E402
from servery_sdk.testing.storage import (  # noqa: E402
    PrefixStorageContract,
    RemoteStorageContract,
    Source,
    StorageProviderContract,
)

__all__ = [
    "DialectContract",
    "ModeContract",
    "PrefixStorageContract",
    "RemoteStorageContract",
    "RuntimeContract",
    "Source",
    "StorageProviderContract",
    "WrongManifest",
    "deployment_plans",
]
