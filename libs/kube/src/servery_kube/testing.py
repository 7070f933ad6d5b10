"""What every ``KubeApi`` must do: the one contract suite that the real server and the one in memory both pass.

A subclass gives the fixtures ``api``, which serves ``WIDGET_CRD``, and ``namespace``, which nobody else uses.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from servery_sdk import kinds
from servery_sdk.kinds import CUSTOM_RESOURCE_DEFINITION
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef

from servery_kube.port import AlreadyExists, Conflict, Expired, KubeApi, NotFound, Propagation, Rejected, WatchEvent

WIDGET = Kind("acme.io/v1", "Widget", "widgets")
UNSERVED = Kind("acme.io/v1", "Gadget", "gadgets")

_PART = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["name"],
}
WIDGET_CRD: Manifest = {
    "apiVersion": CUSTOM_RESOURCE_DEFINITION.api_version,
    "kind": CUSTOM_RESOURCE_DEFINITION.kind,
    "metadata": {"name": "widgets.acme.io"},
    "spec": {
        "group": "acme.io",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": {"type": "string"},
                            "kind": {"type": "string"},
                            "metadata": {"type": "object"},
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "size": {"type": "integer", "minimum": 0},
                                    "colour": {"type": "string", "default": "red"},
                                    "options": {"type": "object", "additionalProperties": {"type": "string"}},
                                    "place": {
                                        "type": "object",
                                        "x-kubernetes-map-type": "atomic",
                                        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                                    },
                                    "words": {"type": "array", "items": {"type": "string"}},
                                    "tags": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "set",
                                        "items": {"type": "string"},
                                    },
                                    "parts": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["name"],
                                        "items": _PART,
                                    },
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


class KubeApiContract:
    """Subclass it and give the two fixtures."""

    @pytest.fixture
    def widget(self, namespace: str) -> Any:
        """Return a maker of widgets."""

        def make(name: str = "w", /, **spec: Any) -> dict[str, Any]:
            metadata = {"name": name, "namespace": namespace}
            return {"apiVersion": WIDGET.api_version, "kind": WIDGET.kind, "metadata": metadata, "spec": spec}

        return make

    @pytest.fixture
    def ref(self, namespace: str) -> Any:
        """Return a maker of references."""
        return lambda name="w", kind=WIDGET: ObjectRef(kind, Namespace(namespace), name)

    async def test_created_object_gets_its_identity(self, api: KubeApi, widget: Any, ref: Any) -> None:
        made = await api.create(widget(size=1), WIDGET)
        metadata = made["metadata"]
        assert metadata["uid"]
        assert metadata["generation"] == 1
        assert metadata["creationTimestamp"].endswith("Z")
        assert await api.get(ref()) == made
        with pytest.raises(AlreadyExists):
            await api.create(widget(), WIDGET)

    async def test_object_that_is_not_there_is_not_found(self, api: KubeApi, ref: Any) -> None:
        with pytest.raises(NotFound):
            await api.get(ref("nobody"))
        with pytest.raises(NotFound):
            await api.patch_status(ref("nobody"), {})
        await api.delete(ref("nobody"))

    async def test_kind_that_is_not_served_is_not_found(self, api: KubeApi) -> None:
        assert await api.has(WIDGET)
        assert await api.has(kinds.DEPLOYMENT)
        assert not await api.has(UNSERVED)
        with pytest.raises(NotFound):
            await api.list(UNSERVED)

    async def test_status_is_written_by_itself_alone(self, api: KubeApi, widget: Any, ref: Any) -> None:
        made = await api.create({**widget(size=1), "status": {"ready": True}}, WIDGET)
        assert "status" not in made
        written = await api.patch_status(ref(), {"ready": True, "deep": {"a": 1, "b": 2}})
        assert written["metadata"]["generation"] == 1
        replaced = await api.patch_status(ref(), {"deep": {"b": 2}})
        assert replaced["status"] == {"deep": {"b": 2}}
        kept = await api.apply({**widget(size=2), "status": {"ready": False}}, WIDGET)
        assert kept["status"] == {"deep": {"b": 2}}
        assert kept["metadata"]["generation"] == 2

    async def test_write_that_changes_nothing_is_none(self, api: KubeApi, widget: Any, ref: Any) -> None:
        await api.apply(widget(size=1), WIDGET)
        await api.patch_status(ref(), {"a": 1})
        before = await api.get(ref())
        await api.apply(widget(size=1), WIDGET)
        await api.patch_status(ref(), {"a": 1})
        assert await api.get(ref()) == before

    async def test_what_is_no_longer_applied_goes(self, api: KubeApi, widget: Any) -> None:
        options = {"a": "1", "b": "2"}
        parts = [{"name": "x", "weight": 1, "note": "n"}, {"name": "y"}]
        await api.apply(widget(size=1, options=options, parts=parts, tags=["s", "t"], words=["a", "b"]), WIDGET)
        left = {"options": {"b": "2"}, "parts": [{"name": "x", "weight": 1}], "tags": ["t"], "words": ["c"]}
        found = await api.apply(widget(**left), WIDGET)
        assert found["spec"] == {**left, "colour": "red"}
        assert (await api.apply(widget(), WIDGET))["spec"] == {"colour": "red"}

    async def test_what_others_own_stays(self, api: KubeApi, widget: Any) -> None:
        await api.apply(widget(options={"ours": "1"}, parts=[{"name": "x", "weight": 1}], tags=["ours"]), WIDGET)
        theirs = widget(options={"theirs": "1"}, parts=[{"name": "x", "note": "n"}, {"name": "z"}], tags=["theirs"])
        await api.apply(theirs, WIDGET, field_manager="other")
        found = await api.apply(widget(size=2), WIDGET)
        assert found["spec"]["options"] == {"theirs": "1"}
        assert found["spec"]["parts"] == [{"name": "x", "note": "n"}, {"name": "z"}]
        assert found["spec"]["tags"] == ["theirs"]
        assert found["spec"]["size"] == 2

    async def test_field_of_two_owners_stays_until_both_leave_it(self, api: KubeApi, widget: Any) -> None:
        await api.apply(widget(size=1), WIDGET)
        await api.apply(widget(size=1), WIDGET, field_manager="other")
        assert (await api.apply(widget(), WIDGET))["spec"]["size"] == 1
        assert "size" not in (await api.apply(widget(), WIDGET, field_manager="other"))["spec"]

    async def test_field_that_is_taken_over_is_lost_to_its_owner(self, api: KubeApi, widget: Any) -> None:
        await api.apply(widget(size=1), WIDGET, field_manager="other")
        await api.apply(widget(size=2), WIDGET)
        found = await api.apply(widget(), WIDGET, field_manager="other")
        assert found["spec"]["size"] == 2

    async def test_managed_fields_say_who_owns_what(self, api: KubeApi, widget: Any, ref: Any) -> None:
        labelled = widget(size=1, parts=[{"name": "x", "weight": 1}], place={"x": 1}, tags=["t"])
        labelled["metadata"]["labels"] = {"team": "a"}
        await api.apply(labelled, WIDGET)
        await api.patch_status(ref(), {"ready": True})
        found = await api.get(ref())
        entries = {
            (e["manager"], e["operation"], e.get("subresource", "")): e["fieldsV1"]
            for e in found["metadata"]["managedFields"]
        }
        assert entries["servery", "Apply", ""] == {
            "f:metadata": {"f:labels": {"f:team": {}}},
            "f:spec": {
                "f:size": {},
                "f:place": {},
                "f:tags": {'v:"t"': {}},
                "f:parts": {'k:{"name":"x"}': {".": {}, "f:name": {}, "f:weight": {}}},
            },
        }
        assert "f:ready" in entries["servery", "Update", "status"]["f:status"]

    async def test_built_in_lists_merge_by_their_keys(self, api: KubeApi, namespace: str, ref: Any) -> None:
        labels = {"app": "a"}

        def deployment(*containers: Manifest) -> dict[str, Any]:
            template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers)}}
            return {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "d", "namespace": namespace},
                "spec": {"selector": {"matchLabels": labels}, "template": template},
            }

        main, sidecar = {"name": "main", "image": "a:1"}, {"name": "sidecar", "image": "b:1"}
        await api.apply(deployment(main, {"name": "old", "image": "c:1"}), kinds.DEPLOYMENT)
        await api.apply(deployment(sidecar), kinds.DEPLOYMENT, field_manager="injector")
        found = await api.apply(deployment({**main, "image": "a:2"}), kinds.DEPLOYMENT)
        images = {c["name"]: c["image"] for c in found["spec"]["template"]["spec"]["containers"]}
        assert images == {"main": "a:2", "sidecar": "b:1"}

    async def test_schema_completes_and_refuses(self, api: KubeApi, widget: Any) -> None:
        assert (await api.create(widget(), WIDGET))["spec"] == {"colour": "red"}
        with pytest.raises(Rejected, match=r"spec\.size"):
            await api.create(widget("wrong", size="big"), WIDGET)
        with pytest.raises(Rejected, match="hue"):
            await api.apply(widget("unknown", hue="red"), WIDGET)

    async def test_name_that_is_none_is_refused(self, api: KubeApi, widget: Any) -> None:
        with pytest.raises(Rejected, match=r"metadata\.name"):
            await api.create(widget("No Name"), WIDGET)

    async def test_update_of_an_old_version_conflicts(self, api: KubeApi, widget: Any) -> None:
        old = await api.create(widget(size=1), WIDGET)
        await api.apply(widget(size=2), WIDGET)
        with pytest.raises(Conflict):
            await api.update(old, WIDGET)

    async def test_update_replaces_the_whole(self, api: KubeApi, widget: Any, ref: Any) -> None:
        made = await api.create(widget(size=1, options={"a": "1"}), WIDGET)
        await api.update({**made, "spec": {"colour": "blue"}}, WIDGET)
        assert (await api.get(ref()))["spec"] == {"colour": "blue"}

    async def test_owner_takes_what_it_owns_with_it(self, api: KubeApi, namespace: str, ref: Any) -> None:
        def config(name: str, owner: Manifest | None = None) -> dict[str, Any]:
            metadata: dict[str, Any] = {"name": name, "namespace": namespace}
            if owner is not None:
                uid = owner["metadata"]["uid"]
                metadata["ownerReferences"] = [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": uid}
                ]
            return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}

        propagations: tuple[Propagation, ...] = ("Background", "Orphan")
        for propagation in propagations:
            owner = await api.create(config(f"owner-{propagation.lower()}"), kinds.CONFIG_MAP)
            owned = ref(f"owned-{propagation.lower()}", kinds.CONFIG_MAP)
            await api.create(config(owned.name, owner), kinds.CONFIG_MAP)
            await api.delete(ref(owner["metadata"]["name"], kinds.CONFIG_MAP), propagation=propagation)
            if propagation == "Background":
                await self._gone(api, owned)
            else:
                await self._gone(api, ref(owner["metadata"]["name"], kinds.CONFIG_MAP))
                assert await api.get(owned)

    async def test_finalizer_holds_an_object_back(self, api: KubeApi, widget: Any, ref: Any) -> None:
        held = widget()
        held["metadata"]["finalizers"] = ["acme.io/hold"]
        await api.create(held, WIDGET)
        await api.delete(ref())
        marked = await api.get(ref())
        assert marked["metadata"]["deletionTimestamp"]
        released = {**marked, "metadata": {k: v for k, v in marked["metadata"].items() if k != "finalizers"}}
        await api.update(released, WIDGET)
        await self._gone(api, ref())

    async def test_list_selects_by_namespace_and_label(self, api: KubeApi, widget: Any, namespace: str) -> None:
        for name, team in (("a", "x"), ("b", "y")):
            made = widget(name)
            made["metadata"]["labels"] = {"team": team}
            await api.create(made, WIDGET)
        found = await api.list(WIDGET, namespace=namespace, labels={"team": "y"})
        assert [item["metadata"]["name"] for item in found.items] == ["b"]
        assert (found.items[0]["apiVersion"], found.items[0]["kind"]) == (WIDGET.api_version, WIDGET.kind)
        assert (await api.list(WIDGET, namespace=f"{namespace}-other")).items == ()

    async def test_watch_goes_on_from_a_version(self, api: KubeApi, widget: Any, ref: Any, namespace: str) -> None:
        await api.create(widget("before"), WIDGET)
        version = (await api.list(WIDGET, namespace=namespace)).resource_version
        await api.create(widget("a"), WIDGET)
        await api.apply(widget("a", size=1), WIDGET)
        await api.delete(ref("a"))
        events: list[WatchEvent] = []

        async def watch() -> None:
            async for event in api.watch(WIDGET, namespace=namespace, resource_version=version):
                events.append(event)
                if len(events) == 4:
                    return

        watching = asyncio.create_task(watch())
        await api.create(widget("b"), WIDGET)
        await asyncio.wait_for(watching, 30)
        assert [(e.type, e.object["metadata"]["name"]) for e in events] == [
            ("ADDED", "a"),
            ("MODIFIED", "a"),
            ("DELETED", "a"),
            ("ADDED", "b"),
        ]

    async def test_watch_from_too_old_a_version_is_expired(self, api: KubeApi, widget: Any, namespace: str) -> None:
        for number in range(20):
            await api.apply(widget(size=number), WIDGET)
        old = api.watch(WIDGET, namespace=namespace, resource_version="1")
        with pytest.raises(Expired):
            await asyncio.wait_for(anext(old), 30)

    @staticmethod
    async def _gone(api: KubeApi, ref: ObjectRef) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    await api.get(ref)
                except NotFound:
                    return
                await asyncio.sleep(0.02)
