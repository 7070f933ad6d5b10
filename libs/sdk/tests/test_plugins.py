from __future__ import annotations

from pathlib import Path

import pytest
from servery_sdk import plugins
from servery_sdk.plugins import DuplicatePlugin


def install(folder: Path, distribution: str, name: str, module: str, text: str) -> None:
    """Put a distribution with one plugin into ``folder``, as an installer does."""
    told = folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(f"[servery]\n{name} = {module}\n")
    (folder / f"{module}.py").write_text(text)


NOTHING = ""
PROVIDER = """
from servery_sdk.hooks import hookimpl
class Provider:
    name, schemes = "acme", frozenset({"acme"})
@hookimpl
def servery_storage_providers():
    yield Provider()
"""


def test_second_plugin_of_a_name_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme-one", "acme", "acme_one", NOTHING)
    install(tmp_path, "acme-two", "acme", "acme_two", NOTHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DuplicatePlugin) as refused:
        plugins.plugin_manager()
    assert "'acme' is registered by both" in str(refused.value)
    assert "acme-one" in str(refused.value)
    assert "acme-two" in str(refused.value)


def test_one_distribution_that_is_found_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("here", "there"):
        install(tmp_path / folder, "acme-again", "acme-again", "acme_again", NOTHING)
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert plugins.plugin_manager().has_plugin("acme-again")


def test_two_that_contribute_one_name_are_both_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme-three", "three", "acme_three", PROVIDER)
    install(tmp_path, "acme-four", "four", "acme_four", PROVIDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DuplicatePlugin, match=r"'acme' is provided by both acme-(three|four) and acme-(three|four)"):
        plugins.load()
