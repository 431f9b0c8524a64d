"""`sweeper.load_spec` and `sweeper.plan`: validate a sweep and estimate its cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper import spec as sweep_files
from sweeper.data.load import unread_data
from sweeper.errors import DataError, SpecError, SweeperError
from sweeper.estimate import DiskNeed, Estimate, Tokens, disk_data, duration_text
from sweeper.estimate.decision_cost import decision_cost
from sweeper.estimate.epochs import count_epoch_rows
from sweeper.estimate.inputs import local_path, plan_disk, plan_estimate, planned_tokens
from sweeper.planning import Accounting, Trajectory, make_plan
from sweeper.planning import Plan as SweepPlan
from sweeper.runs.command_outputs import PlanOutput
from sweeper.runs.results import Result
from sweeper.spec import SweepSpec, parse_spec
from sweeper.sweep.disk import free_disk_bytes
from sweeper.sweep.forecast import Forecast, forecast

if TYPE_CHECKING:
    import pandas as pd

Overrides = Iterable[str] | Mapping[str, Any]


def load_spec(sweep: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> SweepSpec:
    """Read and validate a sweep.

    Args:
        sweep: A sweep file, the name of a shipped sweep (`miniature`), or the content of one as a mapping.
        overrides: Changes to it by dotted key: `{"space.max_steps": 100}`, or texts as `--set` takes
            them: `["space.max_steps=100"]`.

    Raises:
        SpecError: with all problems at once.
    """
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={_yaml(value, key)}" for key, value in overrides.items()]
    if isinstance(sweep, Mapping):
        return parse_spec(_yaml(dict(sweep), "mapping"), source="mapping", overrides=overrides)
    return sweep_files.load_spec(sweep, overrides)


def as_spec(sweep: SweepSpec | str | Path | Mapping[str, Any]) -> SweepSpec:
    """Loads a sweep unless it is a spec already."""
    return sweep if isinstance(sweep, SweepSpec) else load_spec(sweep)


class Plan(Result):
    """What a sweep will train, what sharing saves, and what it will cost.

    `rows` counts rows to train on, held out and left out, `estimate` is time and memory, `decision` what
    the decision at the end costs beside it, and `disk` the disk it needs; each is None where data are
    missing, and `estimate_missing` says which. `budget` is where `compute.budget` is expected to end.
    """

    def __init__(
        self,
        spec: SweepSpec,
        plan: SweepPlan,
        cost: Estimate | str,
        rows: Mapping[str, int] | None,
        disk: DiskNeed | None,
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.estimate = None if isinstance(cost, str) else cost
        self.estimate_missing = cost if isinstance(cost, str) else None
        self.rows = rows
        self.disk = disk
        self.decision = decision_cost(plan, spec, self.estimate)
        budgeted = spec.compute.budget is not None
        self.budget = self.forecast() if budgeted and self.estimate is not None else None
        self.free_bytes = free_disk_bytes(Path("runs") / spec.name)

    def forecast(self) -> Forecast:
        """The order in which the search would train, in virtual time.

        Raises:
            SweeperError: there is no estimate.
        """
        if self.estimate is None:
            raise SweeperError(f"no order without an estimate: {self.estimate_missing}")
        return forecast(self.plan, self.spec, self.estimate)

    @property
    def accounting(self) -> Accounting:
        """Configurations, trajectories, readouts, optimizer steps alone and planned."""
        return self.plan.accounting

    @property
    def trajectories(self) -> Sequence[Trajectory]:
        """The training runs."""
        return self.plan.trajectories

    @property
    def summary(self) -> str:
        """One line with counts."""
        counted = self.accounting
        time = (
            "" if self.estimate is None else f"; about {duration_text(self.estimate.wall_seconds)}"
        )
        return (
            f"{counted.configurations} configurations and {counted.controls} controls from "
            f"{counted.trajectories} trajectories; {counted.ratio:.1f}x fewer optimizer steps{time}"
        )

    @property
    def output(self) -> PlanOutput:
        """What `sweeper plan` prints with `--json`."""
        return PlanOutput.model_validate(
            {
                **self.accounting._asdict(),
                "rows": self.rows,
                "unread": unread_data(self.spec.data, self.spec.evaluation),
                "estimate": None if self.estimate is None else self.estimate.to_data(),
                "estimate_missing": self.estimate_missing,
                "decision": self.decision,
                "budget": self.budget and self.budget.to_data(),
                "disk": disk_data(self.disk, self.free_bytes),
                "trajectory_list": self.trajectories,
            }
        )

    def frame(self) -> "pd.DataFrame":
        """One row per configuration and seed: its trajectory, ids and hyperparameters."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "config_id": item.config_id,
                    "seed": trajectory.seed,
                    "role": item.role,
                    "trajectory_id": trajectory.trajectory_id,
                    **item.values,
                }
                for trajectory in self.trajectories
                for item in trajectory.configurations
            ]
        )


def plan(
    sweep: SweepSpec | str | Path | Mapping[str, Any],
    *,
    workers: int | None = None,
    calibrate: bool = False,
) -> Plan:
    """Plan a sweep and estimate its cost. Nothing is trained, except by `calibrate`.

    Args:
        sweep: A loaded spec, or what `load_spec` takes.
        workers: Trials at once; as many as this machine runs where not given.
        calibrate: Measure for about a minute instead of estimating from sizes.

    Raises:
        SpecError: the sweep is not valid.
        DataError: data files that cannot be used.
        ModelError: the model is a local folder that no trial could train.
        SweeperError: the grid is too large; with `calibrate`, something that training needs is missing.
    """
    spec = count_epoch_rows(as_spec(sweep))
    made = make_plan(spec)
    _check_local_model(made, spec)
    tokens: Tokens | str
    cost: Estimate | str
    if calibrate:
        from sweeper.data.sources import resolve  # These need torch.
        from sweeper.estimate.measured_rates import measured_estimate

        cost = measured_estimate(made, spec, resolve, workers)
        tokens = cost.tokens
    else:
        tokens = _tokens(made, spec)
        cost = tokens if isinstance(tokens, str) else _estimate(made, spec, workers, tokens)
    rows = None if isinstance(tokens, str) else tokens.rows
    return Plan(spec, made, cost, rows, _disk(made, spec, workers, tokens))


ABSENT = tuple(
    f"data.{problem}"
    for problem in (
        "not_found",
        "builtin",
        "gated",
        "not_on_hub",
        "unknown_revision",
        "not_cached",
        "not_fetched",
    )
)
"""Codes of errors about data that are not on this machine."""


def _check_local_model(made: SweepPlan, spec: SweepSpec) -> None:
    """Check a model folder whose weights are here, if the package to read them with is.

    Raises:
        ModelError: see `model.files.check_model` and `model.architecture.check_architecture`.
    """
    try:
        folder = Path(local_path(spec.model.path))
    except DataError:
        return
    if not any(folder.glob("*.safetensors")) or find_spec("transformers") is None:
        return
    from sweeper.model.architecture import check_architecture  # These need torch.
    from sweeper.model.files import check_model

    source = replace(spec.model, path=str(folder))
    headers = check_model(source)
    for tuning in dict.fromkeys(trajectory.tuning for trajectory in made.trajectories):
        check_architecture(source, tuning, headers)


def _tokens(made: SweepPlan, spec: SweepSpec) -> Tokens | str:
    """The counts of the data, or why there is none here: a plan is useful without them.

    Raises:
        DataError: there are data, but they cannot be used.
    """
    try:
        return planned_tokens(made, spec)
    except DataError as error:
        if error.code not in ABSENT:
            raise
        return str(error)
    except SweeperError as error:
        return str(error)


def _estimate(
    made: SweepPlan, spec: SweepSpec, workers: int | None, tokens: Tokens
) -> Estimate | str:
    try:
        return plan_estimate(made, spec, workers=workers, tokens=tokens)
    except SweeperError as error:
        return str(error)


def _disk(
    made: SweepPlan, spec: SweepSpec, workers: int | None, tokens: Tokens | str
) -> DiskNeed | None:
    try:
        return None if isinstance(tokens, str) else plan_disk(made, spec, tokens, workers)
    except SweeperError:
        return None


def _yaml(value: Any, source: str) -> str:
    try:
        return yaml.safe_dump(value, sort_keys=False)
    except yaml.YAMLError as error:
        raise SpecError(source, (f"not plain data: {error}",)) from None
