from __future__ import annotations

import socket
from typing import Any

import pytest
from servery_sdk.digests import DigestAlgorithm, digest_of
from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.hubs import HubPlace
from servery_sdk.storage import Refusal, StorageProvider, StorageUri
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_hf.plugin import HuggingFaceProvider
from servery_storage_hf.uris import HUB
from stand_ins.hub import Hub

SMALL, LARGE = b"{}", b"weights " * 1000


class Repository:
    """The hub's model as the contract sees it; git knows no empty directories, so a marker is none."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def uri(self, path: str) -> str:
        return f"hf://acme/models/{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            self._hub.put(path, content)

    def remove(self, path: str) -> None:
        self._hub.remove(path)


class TestHuggingFace(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, hub: Hub) -> StorageProvider:
        return HuggingFaceProvider()

    @pytest.fixture
    def source(self, hub: Hub) -> Source:
        return Repository(hub)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        return HuggingFaceProvider(), "hf://acme/models/llm"


@pytest.fixture
def model(hub: Hub) -> Hub:
    """The hub with a model in three revisions, of more files than a page lists."""
    hub.commit({"config.json": b"old"}, "v1")
    hub.commit({"config.json": b"branch"}, "feature/quick")
    hub.commit({"config.json": b"converted"}, "refs/pr/3")
    hub.commit({"config.json": SMALL, "model.safetensors": LARGE, "onnx/a b#1.onnx": LARGE, "onnx/config.json": SMALL})
    return hub


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hf://acme/m", HubPlace(repository="acme/m", revision="main")),
        ("hf://acme/m/", HubPlace(repository="acme/m", revision="main")),
        ("hf://acme/m:", HubPlace(repository="acme/m", revision="main")),
        ("HF://acme/m.v-1_x", HubPlace(repository="acme/m.v-1_x", revision="main")),
        ("hf://acme/m:v1", HubPlace(repository="acme/m", revision="v1")),
        ("hf://acme/m@v1", HubPlace(repository="acme/m", revision="v1")),
        ("hf://acme/m/onnx/small/", HubPlace(repository="acme/m", revision="main", path="onnx/small")),
        ("hf://acme/m:v1/onnx", HubPlace(repository="acme/m", revision="v1", path="onnx")),
        ("hf://acme/m@feature%2Fquick/onnx", HubPlace(repository="acme/m", revision="feature/quick", path="onnx")),
        ("hf://acme/m@refs/pr/3/onnx", HubPlace(repository="acme/m", revision="refs/pr/3", path="onnx")),
        ("hf://acme/m/a:b@c.bin", HubPlace(repository="acme/m", revision="main", path="a:b@c.bin")),
        ("hf://acme/m/a%20b.bin", HubPlace(repository="acme/m", revision="main", path="a b.bin")),
    ],
)
def test_uri_names_a_repository_a_revision_and_a_path(text: str, place: HubPlace) -> None:
    assert HUB.place_of(StorageUri.parse(text)) == place


@pytest.mark.parametrize("text", ["hf://gpt2", "hf:///m", "hf://acme/", "hf://../m", "hf://acme/..", "hf://a?b/c#d"])
def test_uri_that_names_no_model_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(Permanent) as refused:
        HUB.place_of(StorageUri.parse(text))
    assert str(refused.value) == f"{text}: not of the form hf://<owner>/<model>[:<revision> or @<revision>][/<folder>]"


def test_list_has_every_page_and_no_folders(model: Hub) -> None:
    found = {entry.path: entry.size_bytes for entry in listed(HuggingFaceProvider(), "hf://acme/models")}
    assert found == {path: len(content) for path, content in model.files.items()}


@pytest.mark.parametrize(
    ("revision", "content"), [(":v1", b"old"), ("@feature%2Fquick", b"branch"), ("@refs/pr/3", b"converted")]
)
def test_revision_is_read(model: Hub, revision: str, content: bytes) -> None:
    (entry,) = listed(HuggingFaceProvider(), f"hf://acme/models{revision}")
    assert fetched(HuggingFaceProvider(), entry) == content


def test_commit_that_was_listed_is_read_although_its_branch_moved_on(model: Hub) -> None:
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/config.json")
    model.put("config.json", b"newer")
    assert fetched(HuggingFaceProvider(), entry) == SMALL


def test_version_is_the_content_not_the_commit(model: Hub) -> None:
    before = listed(HuggingFaceProvider(), "hf://acme/models/onnx")
    model.put("config.json", b"newer")
    after = listed(HuggingFaceProvider(), "hf://acme/models/onnx")
    assert [entry.version for entry in before] == [entry.version for entry in after]
    assert before[0].source != after[0].source


def test_token_goes_to_the_hub_and_never_to_its_store(model: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", model.token)
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/onnx/a%20b%231.onnx")
    assert fetched(HuggingFaceProvider(), entry) == LARGE
    assert {host: credentials for host, _, credentials in model.seen} == {
        "hub": f"Bearer {model.token}",
        "store": None,
    }


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"], ids=["hub", "store"])
def test_server_that_knows_no_ranges_sends_all_and_the_rest_is_kept(model: Hub, path: str) -> None:
    model.has_ranges = False
    (entry,) = listed(HuggingFaceProvider(), f"hf://acme/models/{path}")
    assert fetched(HuggingFaceProvider(), entry, offset=1) == model.files[path][1:]


def test_gated_model_is_read_with_a_token(model: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model.is_gated = True
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/config.json")
    with pytest.raises(Permanent) as refused:
        fetched(HuggingFaceProvider(), entry)
    assert str(refused.value) == (
        f"hf://{entry.source}: 401: the model acme/models is gated; it needs a token: set HF_TOKEN, or give the service"
        " account a secret with the key HF_TOKEN (Access to model acme/models is restricted.)"
    )
    monkeypatch.setenv("HF_TOKEN", model.token)
    assert fetched(HuggingFaceProvider(), entry) == SMALL


NEEDS_ONE = "it needs a token: set HF_TOKEN, or give the service account a secret with the key HF_TOKEN"
MAY_NOT = "the token that was sent (HF_TOKEN) may not read it: ask for access on the model's page, or give another"


@pytest.mark.parametrize(
    ("uri", "token", "said"),
    [
        (
            "hf://acme/other",
            None,
            f"404: there is no model acme/other, or it is private; {NEEDS_ONE} (Repository not found)",
        ),
        (
            "hf://acme/other",
            "hf_of-the-test",
            f"404: there is no model acme/other, or it is private; {MAY_NOT} (Repository not found)",
        ),
        ("hf://acme/models:v9", None, "404: the model acme/models has no revision 'v9' (Invalid rev id: v9)"),
        (
            "hf://acme/models:feature/quick",
            None,
            "404: the model acme/models has no revision 'feature'; write a slash in its name as %2F"
            " (Invalid rev id: feature)",
        ),
        (
            "hf://acme/models",
            "hf_old",
            "401: the hub does not know the token that was sent (HF_TOKEN); give another, or none for a public model"
            " (Invalid credentials in Authorization header)",
        ),
    ],
    ids=["no-model", "no-model-for-this-token", "no-revision", "slash-in-the-revision", "bad-token"],
)
def test_what_is_not_there_is_permanently_missing(
    model: Hub, monkeypatch: pytest.MonkeyPatch, uri: str, token: str | None, said: str
) -> None:
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Permanent) as refused:
        listed(HuggingFaceProvider(), uri)
    assert str(refused.value) == f"{uri}: {said}"


REFUSED = [
    ((403, "GatedRepo", "You are not in the list."), Permanent, f"403: the model acme/models is gated; {MAY_NOT}"),
    ((403, "", "Access to this resource is disabled."), Permanent, "403: the hub has disabled the model acme/models"),
    ((403, "", "Forbidden"), Permanent, f"403: the hub refused access; {MAY_NOT} (Forbidden)"),
    ((400, "", "Nonsense"), Permanent, "400: the hub refused (Nonsense)"),
    ((408, "", "Slow"), Transient, "the hub answered 408 (Slow)"),
    ((429, "", "Easy"), Transient, "the hub answered 429 (Easy)"),
    ((500, "", "Oops"), Transient, "the hub answered 500 (Oops)"),
    ((503, "", ""), Transient, "the hub answered 503"),
]


@pytest.mark.parametrize(("refusal", "error", "said"), REFUSED)
@pytest.mark.parametrize("step", ["revision", "tree"])
def test_refusal_of_the_list_says_what_to_do(
    model: Hub, monkeypatch: pytest.MonkeyPatch, step: str, refusal: Any, error: type[ServeryError], said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", model.token)
    model.refuse(f"/{step}/", *refusal)
    with pytest.raises(error) as refused:
        listed(HuggingFaceProvider(), "hf://acme/models")
    assert str(refused.value).startswith(f"hf://acme/models: {said}")


@pytest.mark.parametrize(
    ("refusal", "error", "said"),
    [
        *REFUSED,
        ((404, "EntryNotFound", "Gone"), Permanent, "404: the model acme/models has no such file at revision '"),
    ],
)
def test_refusal_of_a_file_says_what_to_do(
    model: Hub, monkeypatch: pytest.MonkeyPatch, refusal: Any, error: type[ServeryError], said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", model.token)
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/config.json")
    model.refuse("/resolve/", *refusal)
    with pytest.raises(error) as refused:
        fetched(HuggingFaceProvider(), entry)
    assert str(refused.value).startswith(f"hf://{entry.source}: {said}")


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (
            403,
            Permanent,
            "403: 127.0.0.1, where the hub sends who asks for a large file, refused (Request has expired)",
        ),
        (503, Transient, "the hub answered 503 (Request has expired)"),
    ],
)
def test_refusal_of_the_store_is_no_matter_of_tokens(
    model: Hub, status: int, error: type[ServeryError], said: str
) -> None:
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/model.safetensors")
    model.refuse("/store/", status, words="Request has expired")
    with pytest.raises(error) as refused:
        fetched(HuggingFaceProvider(), entry)
    assert str(refused.value) == f"hf://{entry.source}: {said}"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=12;t=55'}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
    ids=["retry-after", "ratelimit", "ratelimit-of-something-else", "no-number", "silent"],
)
def test_busy_hub_says_how_long_to_wait(model: Hub, headers: dict[str, str], seconds: float | None) -> None:
    model.refuse("/tree/", 429, **headers)
    with pytest.raises(Transient) as refused:
        listed(HuggingFaceProvider(), "hf://acme/models")
    assert refused.value.retry_after_seconds == seconds


def test_large_file_is_asked_for_once_and_its_sum_is_known(model: Hub) -> None:
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/model.safetensors")
    assert entry.digest == digest_of(DigestAlgorithm.SHA256, LARGE)
    provider = HuggingFaceProvider()
    model.seen.clear()
    assert b"".join(fetched(provider, entry, offset=offset)[:100] for offset in (0, 100)) == LARGE[:200]
    assert [host for host, _, _ in model.seen] == ["hub", "store", "store"]


def test_signature_of_the_store_that_ran_out_is_found_anew(model: Hub) -> None:
    now = [0.0]
    provider = HuggingFaceProvider(clock=lambda: now[0])
    (entry,) = listed(provider, "hf://acme/models/model.safetensors")
    assert fetched(provider, entry) == LARGE
    now[0] += 3600
    model.refuse("/store/", 403, words="Request has expired")
    with pytest.raises(Transient, match="the store's signature ran out"):
        fetched(provider, entry)
    model.seen.clear()
    assert fetched(provider, entry) == LARGE
    assert [host for host, _, _ in model.seen] == ["hub", "store"]


def test_signature_that_another_range_found_anew_is_not_refused_for_good(model: Hub) -> None:
    provider = HuggingFaceProvider()
    (entry,) = listed(provider, "hf://acme/models/model.safetensors")
    old = provider.locate(entry).url.replace("signature=x", "signature=old")
    refusal = Refusal(url=old, status=403, reason="Forbidden", headers={}, body=b"")
    assert isinstance(provider.refused(entry, refusal), Transient)


def test_redirects_within_the_hub_are_followed_with_the_token(model: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", model.token)
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/model.safetensors")
    path = f"/{entry.source.replace('@', '/resolve/')}"
    model.refusals = [("/resolve/", (307, {"location": f"{path}?moved"}, b""))]
    model.seen.clear()
    assert fetched(HuggingFaceProvider(), entry) == LARGE
    assert [(host, token) for host, _, token in model.seen] == [
        ("hub", f"Bearer {model.token}"),
        ("hub", f"Bearer {model.token}"),
        ("store", None),
    ]


def test_redirects_without_an_end_are_given_up(model: Hub) -> None:
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/model.safetensors")
    model.refusals = [("/resolve/", (307, {"location": "?again"}, b""))] * 9
    with pytest.raises(Permanent, match="the hub redirects without an end"):
        fetched(HuggingFaceProvider(), entry)


def test_hub_that_went_silent_is_asked_again(model: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    (entry,) = listed(HuggingFaceProvider(), "hf://acme/models/model.safetensors")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        hub = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", f"http://{hub}")
        with pytest.raises(Transient, match=f"hf://{entry.source}: cannot reach {hub}: ConnectError: "):
            fetched(HuggingFaceProvider(), entry)


@pytest.mark.parametrize("endpoint", ["hub.local", "ftp://hub.local", "http://", "http://hub:port", "http://[hub"])
def test_endpoint_that_is_no_url_is_refused(model: Hub, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(Permanent, match=r"HF_ENDPOINT: '.*' is no URL of a hub; such is https://huggingface\.co"):
        listed(HuggingFaceProvider(), "hf://acme/models")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}"])
def test_endpoint_that_is_no_hub_is_said_to_be_none(model: Hub, body: bytes) -> None:
    model.refusals = [("/revision/", (200, {}, body))]
    with pytest.raises(Permanent, match="hf://acme/models: HF_ENDPOINT does not answer as the hub does: "):
        listed(HuggingFaceProvider(), "hf://acme/models")
