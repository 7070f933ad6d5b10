"""``hf://`` URIs, in KServe's spelling and in OME's."""

from servery_sdk.hubs import Hub

HUB = Hub("hf", default_revision="main", slashed="refs/(?:pr|convert)/[^/]+")
