"""The results of a run's methods: one line at a prompt, a small table in a notebook, and `to_dict()`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper import analysis
from sweeper.analysis import Candidate, Certainty, Contrast, front_certainty
from sweeper.analysis import decision as decisions
from sweeper.errors import RunFolderError
from sweeper.runs.fields import Output
from sweeper.runs.frames import candidates_frame, csv_text, html_table, records_frame
from sweeper.runs.outputs import (
    CompareOutput,
    FrontOutput,
    ShowOutput,
)
from sweeper.runs.recommend_output import RecommendOutput
from sweeper.spec import ResultsSpec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from sweeper.report import ReportData


class Result:
    """One result: `frame()` is its table, `to_dict()` what its command prints with `--json`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"

    def _repr_html_(self) -> str:
        return html_table(repr(self), self.frame())

    @property
    def summary(self) -> str:
        """One line with counts."""
        raise NotImplementedError

    @property
    def output(self) -> Output:
        """The data as a pydantic model; see `sweeper.runs.outputs`."""
        raise NotImplementedError

    def frame(self) -> "pd.DataFrame":
        """The result as a table."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """What the command prints with `--json`."""
        return self.output.model_dump()


class Records(tuple[TrialRecord, ...]):
    """All records of a run, in the order they were written: a tuple with a short repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for record in self:
            counts[record.status] = counts.get(record.status, 0) + 1
        listed = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<Records: {len(self)}{f': {listed}' if listed else ''}>"

    def _repr_html_(self) -> str:
        return html_table(repr(self), self.frame())

    def frame(self) -> "pd.DataFrame":
        """One row per record; see `Run.frame`."""
        return records_frame(self)


class Front(Result):
    """The Pareto front of a run: the configurations that no other one dominates in safety and utility.

    Iterating gives the members. `analysis` holds what `sweeper.analysis.find_front` found.
    """

    def __init__(self, folder: RunFolder, found: analysis.Front, spec: ResultsSpec) -> None:
        self._folder = folder
        self.analysis = found
        self.spec = spec

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def members(self) -> tuple[Candidate, ...]:
        """On the front by the estimates, best utility first."""
        return self.analysis.members

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every configuration with a record, controls and incomplete ones included."""
        return self.analysis.candidates

    @property
    def base(self) -> Candidate | None:
        """The untouched model, or None where it was not measured."""
        return self.analysis.base

    @cached_property
    def certainty(self) -> Certainty:
        """P(on front) of every complete configuration, what it is about, and the front's hypervolume."""
        return front_certainty(self.analysis, self.spec)

    @property
    def summary(self) -> str:
        """One line with counts."""
        found = self.analysis
        compared = f"{len(found.members)} on the front of {len(found.competing)} compared"
        objectives = ", ".join(item.metric for item in self.spec.objectives)
        return f"{compared}, by {objectives}"

    @property
    def output(self) -> FrontOutput:
        """What `sweeper front` prints with `--json`."""
        return FrontOutput.of(self.analysis, self.certainty)

    def frame(self, *, everything: bool = False) -> "pd.DataFrame":
        """One row per configuration, best utility first; see `sweeper.runs.frames.candidates_frame`.

        Args:
            everything: All configurations of the run instead of the members, in the order they were
                measured.
        """
        metrics = [item.metric for item in self.spec.objectives]
        items = self.candidates if everything else self.members
        return candidates_frame(items, metrics, self.certainty)

    def plot(self, kind: str = "front") -> "Figure":
        """A chart of the report as a plotly figure; see `Run.plot`."""
        from sweeper.runs.plots import Plots  # It needs plotly.

        return Plots(self._folder, self.analysis, self.spec, self.certainty).draw(kind)


class Recommendation(Result):
    """The configuration to use under a policy, or why there is none.

    `analysis` holds what `sweeper.analysis.recommend` found: contrasts with the controls, who qualified.
    `decision` is the decision for the policy, None where none has begun. `missing` says in a sentence what
    a run lacks whose search is not finished; empty for any other.
    """

    def __init__(
        self,
        found: analysis.Recommendation,
        front: Front,
        decision: decisions.Decision | None = None,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.analysis = found
        self.front = front
        self.decision = decision
        self.missing = missing

    @property
    def chosen(self) -> Candidate | None:
        """The recommended configuration; None where none qualifies."""
        return self.analysis.chosen

    @property
    def reason(self) -> str:
        """Why this one, or why none, in a sentence."""
        return self.analysis.reason

    @property
    def caveats(self) -> tuple[str, ...]:
        """Reasons to doubt it, such as records that are missing or keyword lists that disagree."""
        return (*self.missing, *self.analysis.caveats)

    @property
    def summary(self) -> str:
        """One line with counts."""
        found = self.analysis
        name = "none" if found.chosen is None else found.chosen.config_id
        counted = f"{len(found.ranked)} qualify of {found.compared} compared"
        return f"{name} under {found.policy.name}; {counted}"

    @property
    def output(self) -> RecommendOutput:
        """What `sweeper recommend` prints with `--json`."""
        return RecommendOutput.of(self.analysis, self.decision, self.caveats)

    def frame(self) -> "pd.DataFrame":
        """The recommended configuration and its controls, one per row, with the role under `name`."""
        named = analysis.side_by_side(self.analysis)
        metrics = [item.metric for item in self.front.spec.objectives]
        frame = candidates_frame([item for _, item in named], metrics, self.front.certainty)
        frame.insert(0, "name", [name for name, _ in named])
        return frame


class Decision(Result):
    """The best configurations trained again on new prompts, one after the other, until one holds.

    Iterating gives the steps. `analysis` holds what `sweeper.analysis.decision` found, `path` is the run
    folder of what was measured again, and `recommendation` what follows.
    """

    def __init__(self, recommendation: Recommendation, path: Path) -> None:
        assert recommendation.decision is not None
        self.analysis = recommendation.decision
        self.recommendation = recommendation
        self.path = path

    def __iter__(self) -> Iterator[decisions.Step]:
        return iter(self.analysis.steps)

    @property
    def survivor(self) -> Candidate | None:
        """The configuration that holds, as measured in the search; None where none does, or none yet."""
        return self.analysis.survivor

    @property
    def complete(self) -> bool:
        """Whether the walk is at its end."""
        return self.analysis.complete

    @property
    def summary(self) -> str:
        """One line."""
        return self.analysis.sentence

    @property
    def output(self) -> RecommendOutput:
        """What `sweeper recommend --confirm` prints with `--json`."""
        return self.recommendation.output

    def frame(self) -> "pd.DataFrame":
        """One row per configuration measured again: search, trained again, probability, verdict.

        `P.METRIC` is the probability that the mean rate over prompts and training runs is at most the
        limit.
        """
        import pandas as pd

        rows = [
            {
                **_again(step.measured),
                **{f"P.{test.constraint.metric}": test.probability for test in step.tests},
                "holds": step.holds,
                "verdict": step.verdict,
            }
            for step in self.analysis.steps
        ]
        return pd.DataFrame([*rows, *map(_again, self.analysis.controls)])


class Configuration(Result):
    """One configuration of a run in detail."""

    def __init__(
        self,
        candidate: Candidate,
        output: ShowOutput,
        contrasts: Sequence[Contrast],
        spec: ResultsSpec,
    ) -> None:
        self.candidate = candidate
        self.contrasts = contrasts
        self.spec = spec
        self._output = output

    @property
    def summary(self) -> str:
        """One line with counts."""
        found = self._output
        return f"{found.config_id}, {found.role}, {found.status}; seeds {', '.join(map(str, found.seeds))}"

    @property
    def output(self) -> ShowOutput:
        """What `sweeper show` prints with `--json`."""
        return self._output

    def frame(self) -> "pd.DataFrame":
        """One row per metric and seed: value, k, n and interval."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"metric": name, **seed.model_dump(exclude={"interval"}), **_ends(seed.interval)}
                for name, metric in self._output.metrics.items()
                for seed in metric.seeds
            ]
        )


class Comparison(Result):
    """Two to four configurations side by side; differences are each of the others minus the first."""

    def __init__(self, found: analysis.Comparison, front: Front) -> None:
        self.analysis = found
        self.front = front

    @property
    def summary(self) -> str:
        """One line with counts."""
        ids = ", ".join(item.config_id for item in self.analysis.items)
        differing = sum(setting.differs for setting in self.analysis.settings)
        differ = "hyperparameter differs" if differing == 1 else "hyperparameters differ"
        return f"{ids}; {differing} {differ}"

    @property
    def output(self) -> CompareOutput:
        """What `sweeper compare` prints with `--json`."""
        return CompareOutput.of(self.analysis, self.front.certainty)

    def frame(self) -> "pd.DataFrame":
        """One row per metric and other configuration: difference, interval, exact McNemar p."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "config_id": test.config_id,
                    "against": test.against,
                    "metric": name,
                    **_of_difference(None if found is None else found.model_dump()),
                }
                for test in self.output.tests
                for name, found in test.metrics.items()
            ]
        )


class Report:
    """A written report: a path with a one-line summary of the page.

    `csv` is the table of all configurations, None where the page lists them all.
    """

    def __init__(self, path: Path, data: "ReportData", csv: Path | None = None) -> None:
        self.path = path
        self.data = data
        self.csv = csv

    @classmethod
    def with_csv(cls, path: Path, data: "ReportData") -> "Report":
        """Write the table beside a page that lists a part of the configurations.

        Raises:
            RunFolderError: it cannot be written.
        """
        listing, csv = data.listing, path.with_suffix(".csv")
        if not listing.note:
            return cls(path, data)
        items, metrics = listing.whole.candidates, listing.metrics
        try:
            write_atomic(csv, csv_text(candidates_frame(items, metrics, listing.certainty)))
        except OSError as error:
            raise RunFolderError(
                f"cannot write the table {csv}: {error.strerror}; choose another page with --out"
            ) from None
        return cls(path, data, csv)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<Report: {self.path}, {self.path.stat().st_size / 2**20:.1f} MiB>"


class Exported:
    """The result of an export: `paths`, and with `all` the skipped formats with the reason.

    `comparison` says how exported weights compare with those that were measured, `unaveraged` that the
    files train without the average of the configuration; both are None where that is not so.
    """

    def __init__(
        self,
        config_id: str,
        paths: tuple[Path, ...],
        left_out: Mapping[str, str],
        comparison: str | None,
        unaveraged: str | None = None,
    ) -> None:
        self.config_id = config_id
        self.paths = paths
        self.left_out = left_out
        self.comparison = comparison
        self.unaveraged = unaveraged

    def __repr__(self) -> str:
        folder = self.paths[0].parent if self.paths else None
        return f"<Exported {self.config_id}: {len(self.paths)} files in {folder}>"


def _again(item: decisions.Again) -> dict[str, Any]:
    return {
        "name": item.name,
        "config_id": item.search.config_id,
        "unsafe_rate.search": item.search.values.get("unsafe_rate"),
        "unsafe_rate.again": item.again.values.get("unsafe_rate"),
        "utility_difference": item.utility and item.utility.difference,
    }


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = (None, None) if interval is None else interval
    return {"low": low, "high": high}


def _of_difference(found: Mapping[str, Any] | None) -> dict[str, Any]:
    if found is None:
        return {
            "difference": None,
            **_ends(None),
            "claim": None,
            "paired": None,
            "n": None,
            "p_value": None,
        }
    kept = ("difference", "claim", "paired", "n", "p_value")
    return {**{name: found[name] for name in kept}, **_ends(found["interval"])}
