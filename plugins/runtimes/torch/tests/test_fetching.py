"""Archives that a registration names elsewhere."""

from __future__ import annotations

import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servery_runtime_torch import archive, fetching
from servery_runtime_torch.fetching import NotFetched
from servery_runtime_torch.management import Management
from servery_sdk.routes import Asked
from servery_sdk.serving import InputError, LoadError


def mar(name: str = "far") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name, "handler": "h.py"}}))
    return packed.getvalue()


class Site(http.server.ThreadingHTTPServer):
    """Answers from ``pages``: bytes, or where to go instead; ``asked`` are the headers of each request."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | str] = {"/far.mar": mar(), "/moved.mar": "/far.mar", "/wrong.mar": b"no archive"}
        self.asked: list[dict[str, str]] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append({name.lower(): value for name, value in self.headers.items()})
                found = site.pages.get(self.path.partition("?")[0])
                self.send_response(404 if found is None else 302 if isinstance(found, str) else 200)
                if isinstance(found, str):
                    self.send_header("location", found)
                body = found if isinstance(found, bytes) else b""
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def patterns(*texts: str) -> Any:
    return fetching.allowed({"allowed_urls": ",".join(texts)})


def test_an_allowed_archive_is_kept_whole(site: Site, tmp_path: Path) -> None:
    found = fetching.fetch(f"{site.url}/far.mar?signature=1", tmp_path, patterns("https://x/.*", f"{site.url}/.*"))
    assert (found, found.read_bytes()) == (tmp_path / "far.mar", site.pages["/far.mar"])
    assert [path.name for path in tmp_path.iterdir()] == ["far.mar"]
    assert "x-amz-server-side-encryption" not in site.asked[0]
    with pytest.raises(InputError, match=r"holds a far\.mar already"):
        fetching.fetch(f"{site.url}/far.mar", tmp_path, patterns(".*"))


def test_s3_is_told_of_the_key_service(site: Site, tmp_path: Path) -> None:
    fetching.fetch(f"{site.url}/far.mar", tmp_path, patterns(".*"), is_encrypted=True)
    assert site.asked[0]["x-amz-server-side-encryption"] == "aws:kms"


def test_a_server_may_send_us_only_where_we_may_go(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"far\.mar does not match any allowed URL"):
        fetching.fetch(f"{site.url}/moved.mar", tmp_path, patterns(f"{site.url}/moved.mar"))
    assert fetching.fetch(f"{site.url}/moved.mar", tmp_path, patterns(f"{site.url}/.*")).name == "moved.mar"


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("/gone.mar", NotFetched, "HTTP Error 404"),
        ("/wrong.mar", LoadError, "neither a zip nor a tar archive"),
        ("/far.bin", InputError, "an archive's name ends in one of"),
        ("/../far.mar", InputError, "does not match any allowed URL"),
    ],
)
def test_what_is_no_archive_leaves_nothing_behind(
    site: Site, tmp_path: Path, path: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        fetching.fetch(site.url + path, tmp_path, patterns(".*"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_fetched_where_nothing_is_allowed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"allowed_urls is not set in config\.properties"):
        fetching.fetch(f"{site.url}/far.mar", tmp_path, fetching.allowed({}))
    with pytest.raises(InputError, match="over http and https"):
        fetching.fetch("s3://models/far.mar", tmp_path, patterns(".*"))
    assert site.asked == []


def test_a_pattern_holds_for_the_whole_url(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not match"):
        fetching.fetch(f"{site.url}/far.mar", tmp_path, patterns("http"))
    with pytest.raises(LoadError, match=r"allowed_urls: '\(' is no regular expression"):
        patterns("(")


def test_an_archive_without_end_is_cut(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10)
    with pytest.raises(NotFetched, match="more than 10 bytes"):
        fetching.fetch(f"{site.url}/far.mar", tmp_path, patterns(".*"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NotFetched, match="cannot be fetched into"):
        fetching.fetch(f"{site.url}/far.mar", tmp_path / "gone", patterns(".*"))


class Host:
    is_alone = True

    def __init__(self) -> None:
        self.loaded: list[str] = []

    async def load(self, name: str) -> None:
        self.loaded.append(name)


async def test_a_registration_fetches_and_loads(site: Site, tmp_path: Path) -> None:
    (tmp_path / "model-store").mkdir()
    host: Any = Host()
    managed = Management(host, tmp_path, is_open=True, allowed=patterns(f"{site.url}/.*"))
    answer = await managed.register(Asked(path={}, query={"url": f"{site.url}/far.mar"}))
    assert json.loads(answer.body) == {"status": 'Model "far" Version: 1.0 registered with 1 initial workers'}
    assert host.loaded == ["far"]
    assert (tmp_path / "model-store" / "far.mar").is_file()
    answer = await Management(host, tmp_path, is_open=False, allowed=patterns(".*")).register(
        Asked(path={}, query={"url": f"{site.url}/moved.mar"})
    )
    assert (answer.status, len(site.asked)) == (405, 1)
