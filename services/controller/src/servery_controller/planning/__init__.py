"""Everything that decides. Pure: no I/O, clock, environment, random or logging."""

from servery_controller.planning.errors import EngineMissing, NoPlan, NoRuntime, products
from servery_controller.planning.events import events
from servery_controller.planning.held import config_maps
from servery_controller.planning.observe import observe, refused
from servery_controller.planning.observe_held import observe_held
from servery_controller.planning.plan import plan
from servery_controller.planning.prune import prune
from servery_controller.planning.settings import PlanningSettings

__all__ = [
    "EngineMissing",
    "NoPlan",
    "NoRuntime",
    "PlanningSettings",
    "config_maps",
    "events",
    "observe",
    "observe_held",
    "plan",
    "products",
    "prune",
    "refused",
]
