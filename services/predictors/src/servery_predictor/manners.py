"""What REST requests may ask for in headers, whatever their route: read by the front, and free for who asks nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from servery_http.compression import compression
from servery_http.cross_origin import cross_origin
from servery_http.manners import Answering, Manner, changed
from servery_http.messages import Handler, Request, header
from servery_sdk.routes import CrossOrigin
from starlette.middleware.cors import CORSMiddleware

from servery_predictor.events import Events
from servery_predictor.settings import Settings

_REQUEST_ID = b"x-request-id"


def manners(settings: Settings, pages: CrossOrigin | None = None) -> tuple[Manner, ...]:
    """Return those of hot routes. Compression is around events: what they hold has been decompressed.

    Args:
        pages: That may ask; None for those that the settings name.
    """
    pages = pages or _pages(settings)
    return (
        *((cross_origin(pages.origins),) if pages else ()),
        Manner(frozenset({_REQUEST_ID}), _identified),
        compression(max_body_bytes=settings.max_body_bytes, min_answer_bytes=settings.min_compressed_bytes),
        events(settings).manner(),
    )


def served(app: Any, settings: Settings, pages: CrossOrigin | None = None) -> Any:
    """Return the application of all other routes, which answers preflights where pages of other origins are let in."""
    pages = pages or _pages(settings)
    if pages is None:
        return app
    return CORSMiddleware(app, allow_origins=pages.origins, allow_methods=pages.methods, allow_headers=pages.headers)


def _pages(settings: Settings) -> CrossOrigin | None:
    origins = CrossOrigin.listed(settings.cors_allowed_origin)
    methods, headers = (
        CrossOrigin.listed(settings.cors_allowed_methods),
        CrossOrigin.listed(settings.cors_allowed_headers),
    )
    return CrossOrigin(origins=origins, methods=methods, headers=headers) if origins else None


def events(settings: Settings) -> Events:
    """Return how events are answered."""
    return Events(type=settings.ce_type, source=settings.ce_source, is_merged=settings.ce_merge)


def _identified(handler: Handler) -> Handler:
    # Whoever writes a request's number into its logs finds the answer by it.
    def answer(request: Request) -> Answering:
        told = (_REQUEST_ID, header(request.headers, _REQUEST_ID) or b"")
        return changed(handler(request), lambda response: replace(response, headers=(*response.headers, told)))

    return answer
