"""From a spec to what is trained: configurations, trajectories, readouts, and what sharing saves.

Pure: nothing is read or written.
"""

from sweeper.planning.configurations import (
    MAX_CONFIGURATIONS,
    Configuration,
    Point,
    Role,
    default_control,
    points_of,
    readout_axes,
    short_hash,
    steps_of,
    trajectory_axes,
)
from sweeper.planning.order import coverage_order
from sweeper.planning.packs import AUTO_PACK, Pack, make_packs, take_pack
from sweeper.planning.tasks import make_tasks
from sweeper.planning.trajectories import Accounting, Plan, Trajectory, make_plan

__all__ = [
    "AUTO_PACK",
    "MAX_CONFIGURATIONS",
    "Accounting",
    "Configuration",
    "Pack",
    "Plan",
    "Point",
    "Role",
    "Trajectory",
    "coverage_order",
    "default_control",
    "make_packs",
    "make_plan",
    "make_tasks",
    "points_of",
    "readout_axes",
    "short_hash",
    "steps_of",
    "take_pack",
    "trajectory_axes",
]
