"""The SDK's clients, one for each region, and what signs for them. Imports the SDK: only the provider's calls import
this.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config

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
        self._urls: dict[tuple[str, str | None], str] = {}

    def client(self, bucket: str) -> Any:
        """Return the client of the region that the bucket is known to be in, or else of the one that was set."""
        with self._lock:
            region = self._regions.get(bucket)
            if region not in self._clients:
                self._clients[region] = self._connect(region)
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

    def url(self, bucket: str) -> str:
        """Return what a key is appended to, as the SDK spells it: endpoint, path or virtual style, region."""
        client, place = self.client(bucket), (bucket, self._regions.get(bucket))
        if place not in self._urls:
            self._urls[place] = client.get_object(Bucket=bucket, Key="k")["Url"].removesuffix("k")
        return self._urls[place]

    def signed(self, bucket: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return the headers of a GET with its signature, of credentials as they are now."""
        client = self.client(bucket)
        with self._lock:
            credentials = self._credentials()
        if credentials is None:
            return headers
        request = AWSRequest("GET", url, headers)
        request.context["payload_signing_enabled"] = False
        # The chain refreshes what runs out soon.
        S3SigV4Auth(credentials.get_frozen_credentials(), "s3", client.meta.region_name).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}

    def _credentials(self) -> Any:
        if self.settings.is_anonymous:
            return None
        if self._session is None:
            self._session = boto3.Session(
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
        session = self._session or boto3.Session(region_name=settings.region)
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


def _url_instead(params: Mapping[str, Any], **_: object) -> tuple[AWSResponse, Mapping[str, Any]]:
    """Answer a request with its URL, and send nothing."""
    return AWSResponse(params["url"], 200, {}, None), {"Url": params["url"]}
