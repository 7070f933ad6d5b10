"""The page of manifests as the introductions of others print them: whether each runs, in which modes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from servery_sdk.manifests import Manifest
from servery_sdk.plugins import Plugins

from reference_pages.modes import ROOT, runs

_NOT_DEFINED = ROOT / "tests" / "golden" / "ome-pages-catalog.yaml"
"""What OME's page names and does not define."""


def page(corpus: Path, plugins: Plugins) -> str:
    """Return the page; ``corpus`` has the manifests of pages, and KServe's own runtimes."""
    catalogue = list(_documents([*sorted((corpus / "kserve-runtimes").glob("*.yaml")), _NOT_DEFINED]))
    pages = sorted((corpus / "pages").glob("*.yaml"))
    return (
        "# Published manifests\n\nManifests as the introductions to KServe, OME and KubeDL print them, and as a course on "
        "KServe does, beside KServe's own runtimes and what OME's page names: what each mode makes of them, unchanged.\n\n"
        + runs(pages, corpus / "pages", catalogue, plugins)
    )


def _documents(paths: list[Path]) -> Iterator[Manifest]:
    for path in paths:
        yield from (found for found in yaml.safe_load_all(path.read_text()) if found)
