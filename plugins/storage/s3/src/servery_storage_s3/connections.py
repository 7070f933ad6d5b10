"""The SDK's clients, one for each region, and what signs for them. Imports the SDK: only the provider's calls import
this.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from servery_storage_s3 import signature
from servery_storage_s3.settings import S3Settings


class Connections:
    """Speaks to buckets wherever they are, as whoever the SDK's chain finds: variables, profiles, web identity, a
    container's or a machine's role.
    """

    def __init__(self, settings: S3Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._session: Any = None
        self._clients: dict[str | None, Any] = {}
        self._regions: dict[str, str] = {}
        self._places: dict[tuple[str, str | None], tuple[str, str, str]] = {}

    def client(self, bucket: str) -> Any:
        """Return the client of the region that the bucket is known to be in, or else of the one that was set."""
        with self._lock:
            region = self._regions.get(bucket)
            if region not in self._clients:
                first = self._clients.get(None)
                is_its = first is not None and first.meta.region_name == region
                self._clients[region] = first if is_its else self._connect(region)
            return self._clients[region]

    def learn(self, bucket: str, region: str) -> bool:
        """Keep where the bucket is; return whether that is news."""
        is_news = self._regions.get(bucket) != region
        self._regions[bucket] = region
        return is_news

    def renew(self, token: str) -> bool:
        """Look for credentials again, in place of those that were refused; return whether there may be better ones.

        Args:
            token: Of the session that was refused; empty where the server does not say.
        """
        with self._lock:
            if token and token != self._token():
                return True  # Another thread was quicker.
            self._session = None
            self._clients.clear()
            return not token or token != self._token()

    def get(self, bucket: str, key: str, headers: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
        """Return an object's URL, and ``headers`` with the signature of a GET by credentials as they are now."""
        client, (url, host, path) = self.client(bucket), self._place(bucket)
        encoded = quote(key, safe="/~")
        with self._lock:
            credentials = self._credentials()
        if credentials is None:
            return url + encoded, headers
        keys = credentials.get_frozen_credentials()  # The chain refreshes what runs out soon.
        signed = signature.signed(
            host,
            path + encoded,
            headers,
            access_key_id=keys.access_key,
            secret_access_key=keys.secret_key,
            session_token=keys.token,
            region=client.meta.region_name,
            now=datetime.now(UTC),
        )
        return url + encoded, signed

    def _place(self, bucket: str) -> tuple[str, str, str]:
        """Return what a key is appended to, as the SDK spells it (endpoint, path or virtual style, region): the URL, its
        ``host`` header, and its path.
        """
        known = (bucket, self._regions.get(bucket))
        if known not in self._places:
            url = self.client(bucket).get_object(Bucket=bucket, Key="k")["Url"].removesuffix("k")
            parts = urlsplit(url)
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            is_own = parts.port in {None, {"http": 80, "https": 443}[parts.scheme]}
            self._places[known] = url, host if is_own else f"{host}:{parts.port}", parts.path
        return self._places[known]

    def _credentials(self) -> Any:
        if self.settings.is_anonymous:
            return None
        if self._session is None:
            self._session = _session(
                aws_access_key_id=self.settings.access_key_id,
                aws_secret_access_key=self.settings.secret_access_key,
                aws_session_token=self.settings.session_token,
                region_name=self.settings.region,
            )
        return self._session.get_credentials()

    def _token(self) -> str | None:
        credentials = self._credentials()
        return credentials.get_frozen_credentials().token if credentials else None

    def _connect(self, region: str | None) -> Any:
        settings = self.settings
        self._credentials()
        session = self._session or _session(region_name=settings.region)
        client = session.client(
            "s3",
            region_name=region,
            endpoint_url=settings.endpoint_url,
            verify=str(settings.tls.ca_file) if settings.tls.ca_file else (None if settings.tls.verify else False),
            config=Config(
                s3={
                    "addressing_style": settings.addressing_style,
                    "use_accelerate_endpoint": settings.is_accelerated,
                },
                connect_timeout=settings.connect_timeout_seconds,
                read_timeout=settings.read_timeout_seconds,
                retries={"total_max_attempts": settings.attempts, "mode": "standard"},
                **({"signature_version": UNSIGNED} if settings.is_anonymous else {}),
            ),
        )
        # First: of what is left, the SDK sees whether it is an error after all, which it parses everything for.
        client.meta.events.register_first("before-parse.s3.ListObjectsV2", _objects_read)
        client.meta.events.register("after-call.s3.ListObjectsV2", self._met)
        # The URL of a presigned request is another: of no region.
        client.meta.events.register("before-call.s3.GetObject", _url_instead)
        return client

    def _met(self, parsed: Mapping[str, Any], context: Mapping[str, Any], **_: object) -> None:
        """Learn a bucket's region of a listing, which the SDK sends again to the right one."""
        said = parsed["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        region = said or context.get("signing", {}).get("region")
        if region and "Error" not in parsed:
            self.learn(context["s3_redirect"]["bucket"], region)


def _session(**given: str | None) -> boto3.Session:
    """Return a session that looks at the services that it is asked for: to make a client, the SDK's loader lists the
    folders of all 400, which is a third of what that takes.
    """
    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    loader.list_available_services = partial(_services, loader)
    return boto3.Session(botocore_session=session, **given)


def _services(loader: Any, _: str) -> list[str]:
    folders = [Path(path) for path in loader.search_paths]
    return sorted({found.name for folder in folders if folder.is_dir() for found in folder.iterdir()})


def _objects_read(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Read a listing's objects ourselves, and leave the SDK the rest of it: its parser takes five times as long, most of
    it for what we do not ask, and over thousands of objects as long as they take to fetch.
    """
    if response_dict["status_code"] != HTTPStatus.OK:
        return
    try:
        root = ElementTree.fromstring(response_dict["body"])  # noqa: S314  # as the SDK does; expat bounds entities
    except ElementTree.ParseError:
        return  # The SDK says so.
    objects = [child for child in root if child.tag.endswith("Contents")]
    customized_response_dict["Contents"] = [dict(_fields(found)) for found in objects]
    root[:] = [child for child in root if not child.tag.endswith("Contents")]
    response_dict["body"] = ElementTree.tostring(root)


def _fields(found: ElementTree.Element) -> Iterator[tuple[str, str | int]]:
    for child in found:
        name = child.tag.rpartition("}")[2]
        if name == "Size":
            yield name, int(child.text or "")
        elif name in {"Key", "ETag"}:
            yield name, child.text or ""


def _url_instead(params: Mapping[str, Any], **_: object) -> tuple[AWSResponse, Mapping[str, Any]]:
    """Answer a request with its URL, and send nothing."""
    return AWSResponse(params["url"], 200, {}, None), {"Url": params["url"]}
