"""What each service's pods should hold, and what they say of it: between the controller and the agents that ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from servery_sdk.manifests import ObjectRef
from servery_sdk.model import HeldModel, HeldReport
from servery_sdk.watching import Watchers


class Assignments:
    """What every service's pods should hold, and what they have said.

    Attributes:
        on_report: Called with a service whose pods have said something new, or are gone.
        watchers: Of what is assigned.
    """

    def __init__(self) -> None:
        self.on_report: Callable[[ObjectRef], None] = lambda service: None
        self._assigned: dict[ObjectRef, tuple[HeldModel, ...]] = {}
        self._reports: dict[ObjectRef, dict[str, Mapping[str, HeldReport]]] = {}
        self.watchers = Watchers()

    def assign(self, service: ObjectRef, models: tuple[HeldModel, ...]) -> None:
        """Have the pods of ``service`` hold ``models``."""
        if self._assigned.get(service) != models:
            self._assigned[service] = models
            self.watchers.tell()

    def forget(self, service: ObjectRef) -> None:
        """Tell nobody anything more of ``service``: its pods keep what they have until they end."""
        self._assigned.pop(service, None)

    def assigned(self, namespace: str, name: str) -> tuple[ObjectRef, tuple[HeldModel, ...]] | None:
        """Return the service that an agent means, and its models; None before that is decided."""
        found = (item for item in self._assigned.items() if (item[0].namespace, item[0].name) == (namespace, name))
        return next(found, None)

    def reports(self, service: ObjectRef) -> Mapping[str, tuple[HeldReport, ...]]:
        """Return what the pods of ``service`` say, by model; without any pod's word it is empty."""
        found: dict[str, list[HeldReport]] = {}
        for _, models in sorted(self._reports.get(service, {}).items()):
            for name, report in models.items():
                found.setdefault(name, []).append(report)
        return {name: tuple(reports) for name, reports in found.items()}

    def report(self, service: ObjectRef, pod: str, models: Mapping[str, HeldReport]) -> None:
        """Take what a pod says; it counts until the pod is gone."""
        self._reports.setdefault(service, {})[pod] = models
        self.on_report(service)

    def leave(self, service: ObjectRef, pod: str) -> None:
        """Know that a pod is gone."""
        pods = self._reports.get(service, {})
        pods.pop(pod, None)
        if not pods:
            self._reports.pop(service, None)
        self.on_report(service)
