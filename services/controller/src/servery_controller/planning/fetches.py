"""What the init containers of pods say of the models that they fetched, in their last words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from servery_sdk.fetches import FetchReport
from servery_sdk.lenient import mapping, mappings, number, text
from servery_sdk.manifests import Manifest

from servery_controller.planning.storage import INIT_CONTAINER


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """How the models came into one pod.

    Attributes:
        report: None until they are there.
        failures: How often the init container has ended without them.
    """

    pod: str
    report: FetchReport | None
    failures: int

    @property
    def words(self) -> str:
        """For people; empty until the models are there."""
        return f"pod {self.pod}: {self.report.words}" if self.report is not None else ""


def fetched(pod: Manifest) -> Fetched | None:
    """Return what the pod's status says, or None where nothing is fetched for it."""
    statuses = mappings(mapping(pod, "status"), "initContainerStatuses")
    status = next((found for found in statuses if found.get("name") == INIT_CONTAINER), None)
    if status is None:
        return None
    state = mapping(status, "state")
    ended, waits_again = mapping(state, "terminated"), bool(mapping(mapping(status, "lastState"), "terminated"))
    is_failed = number(ended, "exitCode") != 0 if ended else bool(mapping(state, "waiting")) and waits_again
    return Fetched(
        pod=text(mapping(pod, "metadata"), "name"),
        report=FetchReport.parse(text(ended, "message")) if ended and not is_failed else None,
        failures=int(number(status, "restartCount")) + is_failed,
    )


def slowest(pods: Iterable[Manifest]) -> Fetched | None:
    """Return what took longest of what several pods fetched."""
    found = [one for pod in pods if (one := fetched(pod)) is not None and one.report is not None]
    return max(found, key=lambda one: (one.report.seconds if one.report else 0.0, one.pod), default=None)
