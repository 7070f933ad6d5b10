"""What the environment says of who reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.errors import Permanent


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSettings:
    """Of all accounts, but for ``connection``, which is of the one that it names.

    Attributes:
        connection: The fields of ``AZURE_STORAGE_CONNECTION_STRING``.
    """

    tenant_id: str = ""
    client_id: str = ""
    client_secret: str = ""
    federated_token_file: str = ""
    access_key: str = ""
    access_token: str = ""
    sas: str = ""
    connection: Mapping[str, str] = field(default_factory=dict)

    def of_account(self, account: str) -> Mapping[str, str]:
        """Return the connection string's fields if it is this account's."""
        return self.connection if self.connection.get("AccountName") == account else {}


def settings_of(environment: Mapping[str, str]) -> AzureSettings:
    """Return what ``environment`` says, in Azure's names and in the older ones of KServe.

    Raises:
        Permanent: The connection string is none.

    Source: KServe kserve_storage.py, ``_get_azure_storage_token``; pkg/credentials/azure.
    """

    def said(*variables: str) -> str:
        return next((value for value in map(environment.get, variables) if value), "")

    return AzureSettings(
        tenant_id=said("AZ_TENANT_ID", "AZURE_TENANT_ID"),
        client_id=said("AZ_CLIENT_ID", "AZURE_CLIENT_ID"),
        client_secret=said("AZ_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
        federated_token_file=said("AZURE_FEDERATED_TOKEN_FILE"),
        access_key=said("AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_KEY"),
        access_token=said("AZURE_ACCESS_TOKEN"),
        sas=said("AZURE_STORAGE_SAS_TOKEN").removeprefix("?"),
        connection=_fields(said("AZURE_STORAGE_CONNECTION_STRING")),
    )


def _fields(text: str) -> Mapping[str, str]:
    parts = [part.partition("=") for part in text.strip().split(";") if part.strip()]
    fields = {name.strip(): value.strip() for name, sign, value in parts if sign}
    if len(fields) != len(parts) or (parts and "AccountName" not in fields):
        raise Permanent("AZURE_STORAGE_CONNECTION_STRING: not of the form AccountName=<name>;AccountKey=<key>;…")
    return fields
