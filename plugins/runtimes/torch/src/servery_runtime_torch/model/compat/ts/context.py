"""What a handler is told of its model and of the requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class RequestProcessor:
    """Headers of one request, and of its answer; ``code`` is the answer's status."""

    def __init__(self, request_header: Mapping[str, str]) -> None:
        self._headers = dict(request_header)
        self._answer: dict[str, str] = {}
        self._code, self._phrase = 200, ""

    def get_request_property(self, key: str) -> str | None:
        """Return a header's value."""
        return self._headers.get(key)

    def get_request_properties(self) -> dict[str, str]:
        """Return all headers."""
        return self._headers

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the answer's status."""
        self._code, self._phrase = code, reason_phrase or ""

    def get_response_status_code(self) -> int:
        """Return the answer's status."""
        return self._code

    def get_response_status_phrase(self) -> str:
        """Return the answer's status in words."""
        return self._phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the answer."""
        self._answer[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """Return the answer's headers."""
        return self._answer

    def get_response_header(self, key: str) -> str | None:
        """Return a header of the answer."""
        return self._answer.get(key)


class Context:
    """What stays of a model, and what changes with each call: request ids and headers."""

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: Mapping[str, Any],
        batch_size: int,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: Any = None,
        model_yaml_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.metrics = metrics
        self.model_yaml_config = dict(model_yaml_config or {})
        self.system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] = []

    def get_request_id(self, idx: int = 0) -> str | None:
        """Return a request's id."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:
        """Return a header of a request."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, str]:
        """Return all headers of a request."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the answer's type; the protocol decides it here."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """Return the type that was set."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str]:
        """Return an answer's status and its words."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set an answer's status."""
        self.request_processor[idx].report_status(code, phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set every answer's status."""
        for processor in self.request_processor:
            processor.report_status(code, phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """Return an answer's headers."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of an answer."""
        self.request_processor[idx].add_response_property(key, value)
