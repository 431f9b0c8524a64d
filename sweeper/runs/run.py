"""The Python interface to a run folder: `sweeper.open_run(path)`. Reading needs neither torch nor Ray."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.analysis import (
    Candidate,
    Policy,
    claim_texts,
    compare_configurations,
    contrasts,
    find_candidate,
    find_front,
    policy_of,
    recommend,
)
from sweeper.analysis.decision import decided_of, said_of
from sweeper.errors import RunFolderError, SweeperError
from sweeper.judges import MIN_COVERAGE, RejudgedRecords, overlay
from sweeper.runs.counts import missing_of
from sweeper.runs.frames import html_table, records_frame
from sweeper.runs.outputs import ShowOutput
from sweeper.runs.question import read_question, read_sweep
from sweeper.runs.results import (
    Comparison,
    Configuration,
    Decision,
    Exported,
    Front,
    Recommendation,
    Records,
    Report,
)
from sweeper.spec import ImportedSpec, SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records
from sweeper.sweep.decision import read_decision, stage_folder

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from sweeper.export import Origin
    from sweeper.runs.plots import Plots
    from sweeper.runs.progress import SweepProgress


class Run:
    """A run folder, finished or not.

    Every call reads the current files. With a `judge` of `sweeper rescore`, all rates are those of that
    judge; below `min_coverage`, in (0, 1], a record is unscored.

    Raises:
        RunFolderError: the folder holds no run.
    """

    def __init__(
        self, path: str | Path, judge: str | None = None, min_coverage: float = MIN_COVERAGE
    ) -> None:
        self.folder = RunFolder(Path(path)).open()
        self._judge = judge
        self._min_coverage = min_coverage

    def __repr__(self) -> str:
        records = self.records
        planned = self.folder.planned_records()
        state = f"{len(records)} of {planned} records" if planned else f"{len(records)} records"
        judge = f", judged by {self._judge}" if self._judge else ""
        return f"<Run {self.folder.root}: {state}{judge}>"

    def _repr_html_(self) -> str:
        return html_table(repr(self), self.front().frame())

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_")]

    @property
    def spec(self) -> SweepSpec:
        """The spec the run was started with, overrides included.

        Raises:
            SpecError, RunFolderError: damaged, unreadable, or of an imported run.
        """
        return read_sweep(self.folder)

    @property
    def question(self) -> SweepSpec | ImportedSpec:
        """What the results answer: the spec of the sweep, or of the import; see `read_question`."""
        return read_question(self.folder)

    @property
    def accounting(self) -> dict[str, Any]:
        """The counts of the plan: configurations, trajectories, optimizer steps alone and planned.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        return self._planned("accounting", required=True)

    @property
    def estimate(self) -> dict[str, Any] | None:
        """The cost estimate made when the run started, or None if it was not possible.

        Raises:
            RunFolderError: plan.json is missing or damaged.
        """
        return self._planned("estimate") or None

    @property
    def records(self) -> Records:
        """All records, in the order they were written. An incomplete last line is left out.

        Raises:
            RecordError: records.jsonl cannot be trusted.
            JudgeError: the judge has not judged this run.
        """
        judged = self.judged()
        found = read_records(self.folder.records).records if judged is None else judged.records
        return Records(found)

    def judged(self) -> RejudgedRecords | None:
        """The records under the judge, with its coverage; None without a judge.

        Raises:
            RecordError, JudgeError: see `records`.
        """
        if self._judge is None:
            return None
        records = read_records(self.folder.records).records
        return overlay(self.folder, records, self.spec, self._judge, self._min_coverage)

    def frame(self) -> "pd.DataFrame":
        """One row per record: ids, hyperparameters, readout, and for each metric value, k and n.

        Columns of a metric are `unsafe_rate`, `unsafe_rate.k`, `unsafe_rate.n`. What was not measured
        is missing (NaN), never zero.
        """
        return records_frame(self.records)

    def front(self) -> Front:
        """The configurations that no other one dominates in safety and utility."""
        spec = self.question
        return Front(self.folder, find_front(self.records, spec), spec)

    def recommend(
        self,
        policy: str | Policy = "safest-useful",
        *,
        limit: float | None = None,
        utility: float | None = None,
    ) -> Recommendation:
        """The configuration to use under a policy, or why there is none.

        Args:
            policy: One of `sweeper.analysis.NAMES`.
            limit: For `max-utility-at`: the limit of the unsafe rate, in [0, 1].
            utility: For `min-unsafe-at`: the utility to reach.

        Raises:
            SweeperError: an unknown policy, or one without its number.
        """
        return self._recommend(as_policy(policy, limit, utility))

    def _recommend(self, policy: Policy) -> Recommendation:
        front = self.front()
        decision = None
        if self._judge is None:
            decision = read_decision(self.folder, front.spec, front.analysis, policy)
        found = recommend(front.analysis, front.spec, policy, decided_of(decision))
        missing = missing_of(self.folder, front.spec, front.analysis.candidates)
        return Recommendation(found, front, decision, missing)

    def decision(
        self,
        policy: str | Policy = "safest-useful",
        *,
        limit: float | None = None,
        utility: float | None = None,
    ) -> Decision | None:
        """The decision for a policy, finished or not; None where none has begun.

        Args:
            policy: As for `recommend`, and so are `limit` and `utility`.
            limit: See `recommend`.
            utility: See `recommend`.

        Raises:
            SweeperError: see `recommend`; or the run was opened with a judge.
        """
        wanted = as_policy(policy, limit, utility)
        self._refuse_judge()
        found = self._recommend(wanted)
        path = stage_folder(self.folder, wanted).root
        return None if found.decision is None else Decision(found, path)

    def decide(
        self,
        policy: str | Policy = "safest-useful",
        *,
        limit: float | None = None,
        utility: float | None = None,
        seeds: int | None = None,
        top: int | None = None,
        quiet: bool = False,
    ) -> Decision:
        """Train the best configurations again on new prompts, one after the other, until one holds.

        `sweeper.run` does this at its end, for the default policy. This trains on Ray; the same call
        continues an interrupted decision, and a finished one is not measured again.

        Args:
            policy: As for `recommend`, and so are `limit` and `utility`.
            limit: See `recommend`.
            utility: See `recommend`.
            seeds: How many new seeds, at least 2; by default as begun, else as the sweep says.
            top: The most configurations to test; at least 1, likewise.
            quiet: Show no progress.

        Raises:
            SweeperError: nothing to decide; begun with another number of seeds; or the run was opened with
                a judge.
            KeyboardInterrupt: stopped early; all finished results are saved.
        """
        from sweeper.runs.progress import SweepProgress  # Of a sweep; reading needs none.

        with SweepProgress(self.spec, quiet=quiet) as progress:
            return self.run_decision(as_policy(policy, limit, utility), seeds, top, progress)

    def run_decision(
        self, policy: Policy, seeds: int | None, top: int | None, progress: "SweepProgress"
    ) -> Decision:
        """`decide` with a progress of one's own."""
        from sweeper.runs.measure import decide_to_end  # Of a sweep.

        self._refuse_judge()
        decide_to_end(self.spec, self.folder.root, progress, policy, seeds, top)
        found = self.decision(policy)
        assert found is not None
        return found

    def _refuse_judge(self) -> None:
        if self._judge is not None:
            raise SweeperError(
                "a decision uses the sweep's keyword lists; open the run without a judge, then run "
                "`sweeper rescore` on the decision's folder in `confirm/`"
            )

    def candidate(self, config_id: str) -> Candidate:
        """One configuration by id or by an unambiguous beginning of it.

        Raises:
            RunFolderError: none or several match.
        """
        return self._candidate(self.front(), config_id)

    def show(self, config_id: str) -> Configuration:
        """One configuration in detail, by id or by an unambiguous beginning of it.

        Raises:
            RunFolderError: none or several match.
        """
        front = self.front()
        item = self._candidate(front, config_id)
        place = front.certainty.memberships.get(item.config_id)
        compared = contrasts(item, front.analysis, front.spec)
        output = ShowOutput.of(item, place, compared, self.folder, front.spec)
        return Configuration(item, output, compared, front.spec)

    def compare(self, *config_ids: str) -> Comparison:
        """Two to four configurations side by side, with paired tests of each against the first.

        Raises:
            RunFolderError: an id that none or several match.
            SweeperError: fewer, more, or one twice.
        """
        front = self.front()
        items = [self._candidate(front, config_id) for config_id in config_ids]
        return Comparison(
            compare_configurations(items, front.spec, front.analysis.candidates), front
        )

    def responses(
        self,
        config: str | Sequence[str] | None = None,
        *,
        suite: str | None = None,
        flipped: bool | None = None,
        refusal: bool | None = None,
    ) -> "pd.DataFrame":
        """The stored responses, one row each, with the verdict of the sweep's first keyword list.

        Columns: `config_id`, `seed`, `suite`, `prompt_id`, `prompt`, `response`, `cut` (generation was
        stopped early), `refusal` and `phrase` (the verdict), `base_refusal` (the untouched model's verdict
        on the same prompt), `flipped` (whether the two differ). A verdict is missing where there is none.

        Args:
            config: Only of these configurations, by id or by an unambiguous beginning.
            suite: Only of this suite: `harmful`, `harmless`, `utility`.
            flipped: Only those whose verdict differs from the untouched model's, or only the others.
            refusal: Only refusals, or only the others that have a verdict.

        Raises:
            RunFolderError: an id that none or several match, or a damaged file of responses.
        """
        from sweeper.runs.responses import responses_frame  # Of the report, which needs plotly.

        names = None
        if config is not None:
            front = self.front()
            given = [config] if isinstance(config, str) else config
            names = [self._candidate(front, one).config_id for one in given]
        keyword_list = next(iter(self.question.keyword_lists), "")
        frame = responses_frame(self.folder, self.records, names, suite, keyword_list)
        if flipped is not None:
            frame = frame[frame["flipped"] == flipped]
        if refusal is not None:
            frame = frame[frame["refusal"].map(lambda found: found is refusal)]
        return frame.reset_index(drop=True)

    def plots(self) -> tuple[str, ...]:
        """The names of the charts available for this run, in the order of the report."""
        return self._plots().kinds

    def plot(self, kind: str = "front") -> "Figure":
        """A chart of the report as a plotly figure.

        Args:
            kind: One of `plots()`, or the part before the slash: `heat` is the first of the heat maps.

        Raises:
            SweeperError: this run has no such chart.
        """
        return self._plots().draw(kind)

    def report(
        self,
        out: str | Path | None = None,
        *,
        max_response_mib: float = 4.0,
        redact: bool = False,
        external_plotly: bool = False,
    ) -> Report:
        """Write the report: one HTML page that works offline.

        Of more than 10,000 configurations it lists a part, and a CSV file beside it all.

        Args:
            out: The page to write; `report.html` in the run where not given.
            max_response_mib: The most MiB of responses in it, 0 for none.
            redact: Leave prompts and responses of harmful suites out, and folders of local paths.
            external_plotly: Keep plotly.js (1.5 MB) in a file beside the page.

        Raises:
            RunFolderError: the page cannot be written.
        """
        from sweeper.report import write_report  # It needs plotly.

        path = self.folder.report if out is None else Path(out)
        data = write_report(
            self.folder,
            self.records,
            self.question,
            self.accounting,
            path,
            self.estimate,
            self.judged(),
            samples=int(max_response_mib * 1024**2),
            redact=redact,
            external_plotly=external_plotly,
        )
        return Report.with_csv(path, data)

    def export(
        self,
        *targets: str,
        out: str | Path | None = None,
        config: str | None = None,
        world_size: int = 1,
        micro_batch: int | None = None,
        rows: bool | None = None,
        weights: bool = False,
        allow_unaveraged: bool = False,
    ) -> Exported:
        """Write the recommended hyperparameters as other trainers' files, or the trained weights.

        Args:
            targets: Names of `sweeper.export.FORMATS`, or `all`; `yaml` where none is given. With `all`,
                formats that do not support the configuration are skipped and named.
            out: Folder to write; `export/` in the run where not given.
            config: A configuration by id instead of the recommended one.
            world_size: GPUs the training will use.
            micro_batch: Rows per GPU and forward pass.
            rows: Whether the training rows are written, in the order of the sweep; by default with formats
                that name them, or whose command does.
            weights: Also the trained weights: those the sweep kept, or else it trains again.
            allow_unaveraged: Files that train an averaged configuration without its average.

        Raises:
            SweeperError: nothing is recommended, or no such format.
            ExportError: a setting that the target cannot have.
            RunFolderError: a file cannot be written, or an id that none or several match.
        """
        from sweeper.export import export_formats, formats_of  # Nothing else needs them.
        from sweeper.export.header import unaveraged_text
        from sweeper.export.job import is_averaged

        formats = formats_of(targets or ("yaml",))
        found = self.recommend()
        chosen = self._candidate(found.front, config) if config else found.chosen
        if chosen is None:
            raise SweeperError(
                f"{found.reason} Nothing is exported; name a configuration with --config"
            )
        spec, folder = self.spec, self.folder.root / "export" if out is None else Path(out)
        origin = self._origin(chosen, found)
        written, left_out = export_formats(
            chosen,
            spec,
            formats,
            folder,
            rows=rows,
            skip="all" in targets,
            world_size=world_size,
            micro_batch=micro_batch,
            origin=origin,
            allow_unaveraged=allow_unaveraged,
        )
        comparison = None
        if weights:
            from sweeper.export.weights import export_weights  # It needs torch.

            exported = export_weights(self.folder, spec, chosen, folder, origin)
            written.append(exported.folder)
            comparison = exported.comparison
        unaveraged = allow_unaveraged and is_averaged(chosen)
        return Exported(
            chosen.config_id,
            tuple(dict.fromkeys(written)),
            left_out,
            comparison,
            unaveraged_text(chosen.config) if unaveraged else None,
        )

    def _origin(self, chosen: Candidate, found: Recommendation) -> "Origin":
        """The origin of an export."""
        from sweeper.export import Origin

        judged, best = self.judged(), found.chosen
        return Origin(
            run=self.folder.root.resolve().name,
            compared=found.analysis.compared,
            recommended=best is not None and best.config_id == chosen.config_id,
            base=found.analysis.base,
            judge=None if judged is None else judged.summary,
            claims=claim_texts(chosen, found.front.analysis, found.front.spec),
            decision=(*found.missing, *said_of(found.decision, chosen.config_id)),
        )

    def _candidate(self, front: Front, config_id: str) -> Candidate:
        return find_candidate(front.candidates, config_id, str(self.folder.root))

    def _plots(self) -> "Plots":
        from sweeper.runs.plots import Plots  # It needs plotly.

        front = self.front()
        return Plots(self.folder, front.analysis, front.spec, front.certainty)

    def _planned(self, key: str, *, required: bool = False) -> dict[str, Any]:
        """A block of plan.json; empty where it is missing and not required."""
        try:
            content = json.loads(self._text(self.folder.plan))
            return dict(content[key] if required else content.get(key) or {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RunFolderError(
                f"{self.folder.plan} is damaged; delete run.json and plan.json, and run the same sweep "
                "again: it keeps its records"
            ) from None

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RunFolderError(f"cannot read {path}: {error}") from None


def as_policy(policy: str | Policy, limit: float | None, utility: float | None) -> Policy:
    """A policy from its name and number; a `Policy` is returned unchanged."""
    return policy if isinstance(policy, Policy) else policy_of(policy, limit, utility)


def open_run(path: str | Path, judge: str | None = None, min_coverage: float = MIN_COVERAGE) -> Run:
    """Open a run folder, optionally with a judge's rates instead of the first keyword list's.

    Raises:
        RunFolderError: the folder holds no run.
    """
    return Run(path, judge, min_coverage)
