"""What is sent to a worker: every setting, once, as frozen dataclasses of the standard library.

A block is defined here and nowhere else; `sweeper.spec` validates it from a sweep file by the ranges
beside its fields, and the planner passes it on.
"""

from sweeper.task.blocks import as_written, from_plain
from sweeper.task.budget import Budget
from sweeper.task.compute import ComputeSettings
from sweeper.task.data import (
    SUITES,
    ChatFormat,
    DataSettings,
    DataSource,
    PromptSuite,
    Source,
    Template,
)
from sweeper.task.evaluation import EvaluationSettings, HarnessSettings
from sweeper.task.model import ALL_LINEAR, FULL_TUNING, ModelSource, Tuning
from sweeper.task.naming import configuration_name
from sweeper.task.optimizer import ADAMW, EIGHT_BIT, Feedback, OptimizerSettings, Scheduler
from sweeper.task.stop_rules import ASSUMPTION, RateLimit, StopRules
from sweeper.task.trajectory import (
    TASK_VERSION,
    Average,
    AverageKind,
    Bema,
    Readout,
    Segment,
    TrajectoryTask,
    equal_parts,
    running_averages,
)

__all__ = [
    "ADAMW",
    "ALL_LINEAR",
    "ASSUMPTION",
    "EIGHT_BIT",
    "FULL_TUNING",
    "SUITES",
    "TASK_VERSION",
    "Average",
    "AverageKind",
    "Bema",
    "Budget",
    "ChatFormat",
    "ComputeSettings",
    "DataSettings",
    "DataSource",
    "EvaluationSettings",
    "Feedback",
    "HarnessSettings",
    "ModelSource",
    "OptimizerSettings",
    "PromptSuite",
    "RateLimit",
    "Readout",
    "Scheduler",
    "Segment",
    "Source",
    "StopRules",
    "Template",
    "TrajectoryTask",
    "Tuning",
    "as_written",
    "configuration_name",
    "equal_parts",
    "from_plain",
    "running_averages",
]
