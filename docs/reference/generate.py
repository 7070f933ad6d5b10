"""Print the reference pages from what they describe: settings, metrics, dialects, modes, and what fields become."""

from __future__ import annotations

from pathlib import Path

from reference_pages import fields, metrics, modes, published, settings
from reference_pages.trials import Trials
from servery_sdk import plugins

FOLDER = Path(__file__).parent
CORPUS = FOLDER.parents[2] / "shared" / "corpus"
"""Manifests as others print them. They are not in this repository: without them their page stays as it is."""
HEADER = "<!-- Printed by generate.py; edit what it reads. -->\n"


def files() -> dict[str, str]:
    """Return the text of each page by its name."""
    installed = plugins.load()
    trials = {name: Trials(dialect, installed) for name, dialect in installed.dialects.items()}
    pages = {
        "settings.md": settings.page(),
        "metrics.md": metrics.page(),
        "dialects-and-modes.md": modes.page(trials, installed),
        **{f"fields-{name}.md": fields.page(found, name, installed) for name, found in trials.items()},
    }
    if CORPUS.is_dir():
        pages["published-manifests.md"] = published.page(CORPUS, installed)
        return {name: HEADER + text for name, text in pages.items()}
    kept = {"published-manifests.md": (FOLDER / "published-manifests.md").read_text()}
    return {name: HEADER + text for name, text in pages.items()} | kept


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text)
