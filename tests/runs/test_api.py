"""The Python API over a real sweep: what each method gives, how it prints, and what it refuses."""

import html
import math
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
import yaml
from support.decisions import drive_in_process, halved
from support.factories import make_spec, make_sweep
from support.run_folders import write_run
from support.viewer_run import viewer_run

import sweeper
from sweeper.analysis import find_front, front_certainty, recommend
from sweeper.errors import RunFolderError, SpecError, SweeperError
from sweeper.planning import make_plan
from sweeper.runs import progress
from sweeper.runs.frames import html_table
from sweeper.runs.progress import SweepProgress
from sweeper.runs.terminal import Terminal
from sweeper.store.records import RecordsRead

LONGEST_LINE = 500


@pytest.fixture(scope="module")
def trained(tiny_spec_text: str, tmp_path_factory: pytest.TempPathFactory) -> sweeper.Run:
    """The tiny sweep, run through Ray."""
    out = tmp_path_factory.mktemp("api") / "tiny"
    return sweeper.run(yaml.safe_load(tiny_spec_text), out, quiet=True)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> sweeper.Run:
    """A finished run of 139 synthetic records."""
    folder = write_run(tmp_path_factory.mktemp("wide"), make_sweep(seed=3), readouts=139)
    return sweeper.open_run(folder.root)


def notebook_html(value: Any) -> str:
    """What a notebook shows of a value."""
    return str(value._repr_html_())


def printed(run: sweeper.Run) -> list[Any]:
    """One of each kind of result."""
    ids = [item.config_id for item in run.front().candidates]
    front = run.front()
    return [
        run,
        run.records,
        run.records[0],
        front,
        front.candidates[0],
        run.recommend(),
        run.compare(*ids[:3]),
        run.show(ids[0]),
        sweeper.plan(run.spec),
    ]


def test_a_sweep_runs_from_python_and_every_record_is_there(trained: sweeper.Run) -> None:
    plan = sweeper.plan(trained.spec)
    assert {record.key for record in trained.records} == plan.plan.keys()
    assert len(trained.frame()) == len(trained.records) == plan.accounting.readouts
    assert {record.status for record in trained.records} == {"complete"}
    again = sweeper.run(trained.spec, trained.folder.root, quiet=True)
    assert again.records == trained.records


def test_results_are_those_of_the_analysis(trained: sweeper.Run) -> None:
    spec = trained.spec
    found = find_front(trained.records, spec)
    certainty = front_certainty(found, spec)
    front = trained.front()
    frame = front.frame(everything=True)
    assert list(frame["config_id"]) == [item.config_id for item in found.candidates]
    assert [item.config_id for item in front] == [item.config_id for item in found.members]
    for number, item in enumerate(found.candidates):
        row = frame.iloc[number]
        assert row["unsafe_rate"] == item.values["unsafe_rate"]
        interval = item.interval("unsafe_rate")
        assert interval is not None
        assert (row["unsafe_rate.low"], row["unsafe_rate.high"]) == tuple(interval)
        place = certainty.memberships.get(item.config_id)
        if place is None:
            assert pd.isna(row["p_front"]) and not row["on_front"]
        else:
            assert (row["p_front"], row["front_membership"]) == (place.p_front, place.label)
            found_p = row["p_front_upper"], row["p_front_claim"]
            assert found_p == (place.p_front_upper, "these weights")
    chosen = recommend(found, spec).chosen
    mine = trained.recommend().chosen
    assert (mine and mine.config_id) == (chosen and chosen.config_id)


def test_responses_have_a_row_each_and_flips_differ_from_the_base(trained: sweeper.Run) -> None:
    frame = trained.responses()
    prompts = {
        suite: frame[frame["suite"] == suite]["prompt_id"].nunique()
        for suite in ("harmful", "harmless")
    }
    rate = trained.records[0].metrics["unsafe_rate"]
    assert prompts["harmful"] == rate.n
    assert len(frame[frame["suite"] == "harmful"]) == rate.n * len(trained.records)
    flipped = trained.responses(flipped=True)
    assert set(flipped["flipped"]) <= {True}
    assert len(flipped) + len(trained.responses(flipped=False)) == len(frame)


def test_flips_are_those_whose_verdict_the_untouched_model_did_not_have(tmp_path: Path) -> None:
    run = sweeper.open_run(viewer_run(tmp_path).root)
    frame = run.responses(suite="harmful")
    base = next(record.config_id for record in run.records if record.role == "base")
    for _, row in frame.iterrows():
        before = frame[
            (frame["config_id"] == base)
            & (frame["prompt_id"] == row["prompt_id"])
            & (frame["seed"] == row["seed"])
        ]
        if len(before):
            assert row["flipped"] == (row["refusal"] != before.iloc[0]["refusal"])
    assert not frame[frame["config_id"] == base]["flipped"].any()
    assert frame["flipped"].any()
    refused = run.responses(suite="harmful", refusal=True)
    assert 0 < len(refused) < len(frame) and set(refused["refusal"]) == {True}
    longest = max(frame["response"], key=len)
    assert len(longest) > 1000
    assert longest not in repr(frame) and html.escape(longest) not in notebook_html(frame)


@pytest.mark.parametrize("name", ["trained", "wide"])
def test_results_print_one_short_line(name: str, request: pytest.FixtureRequest) -> None:
    for result in printed(request.getfixturevalue(name)):
        text = repr(result)
        assert len(text) < LONGEST_LINE and "\n" not in text
        assert text.startswith("<") and text.endswith(">")


def test_tables_in_a_notebook_are_small_and_escaped(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    records = make_sweep(seed=3)
    records = [*records[:-1], replace(records[-1], config_id=hostile)]
    run = sweeper.open_run(write_run(tmp_path, records, readouts=len(records)).root)
    for result in printed(run):
        if hasattr(result, "_repr_html_"):
            text = result._repr_html_()
            assert "<table" in text and len(text) < 40_000
    text = run.show(hostile)._repr_html_()
    assert "<img" not in text and "&lt;img" in text


@pytest.mark.parametrize("name", ["trained", "wide"])
def test_every_plot_of_a_run_is_drawn(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    kinds = run.plots()
    assert kinds[0] == "front"
    for kind in kinds:
        figure = run.plot(kind)
        assert isinstance(figure, go.Figure) and len(figure.data) > 0
    steps = [kind for kind in kinds if kind.startswith("steps/")]
    # The recommended one of the wide run is the trainers' defaults, at one number of steps only.
    assert bool(steps) is (name == "trained")
    if steps:
        assert run.plot("steps") == run.plot(steps[0])
    assert run.front().plot() == run.plot("front")
    with pytest.raises(SweeperError):
        run.plot("no-such-plot")


def test_the_training_curves_are_among_the_plots_of_a_real_run(trained: sweeper.Run) -> None:
    assert "training" in trained.plots()


def test_reports_and_exports_are_written_where_asked(trained: sweeper.Run, tmp_path: Path) -> None:
    report = trained.report(tmp_path / "page.html", redact=True)
    assert Path(report) == tmp_path / "page.html"
    assert "<html" in (tmp_path / "page.html").read_text(encoding="utf-8")
    some = next(item for item in trained.front().candidates if item.role == "candidate")
    exported = trained.export("trl", "yaml", out=tmp_path / "export", config=some.config_id)
    assert exported.config_id == some.config_id
    assert exported.paths and all(path.is_file() for path in exported.paths)
    assert len(repr(exported)) < LONGEST_LINE
    with pytest.raises(SweeperError):
        trained.export("no-such-format")


@pytest.mark.slow
def test_a_sweep_decides_on_new_prompts_and_seeds_with_the_weights_of_the_search(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    """Everything is allowed, so that the best of the search holds; all of it is really trained."""
    text = tiny_spec_text.replace("prompt_split: all", "prompt_split: search")
    changes = {
        "constraints": [{"metric": "unsafe_rate", "max": 1.0}],
        "evaluation.utility_metrics": ["heldout_loss"],
        "objectives": ["heldout_loss", "unsafe_rate"],
        "space.learning_rate": 4e-3,
        "decide.seeds": 2,
    }
    spec = sweeper.load_spec(yaml.safe_load(text), changes)
    run = sweeper.run(spec, tmp_path / "run", quiet=True)
    found = run.decision()
    assert found is not None and found.complete and found.survivor is not None
    assert found.survivor.config_id == run.recommend().analysis.ranked[0].config_id
    assert len(repr(found)) < LONGEST_LINE
    again = sweeper.open_run(found.path).records
    prompts = [record.metrics["unsafe_rate"].n for record in (*run.records, *again)]
    assert set(prompts[: len(run.records)]) == {8 - prompts[-1]} != {0}
    (same,) = (r for r in again if r.key == (found.survivor.config_id, 0))
    before = next(record for record in run.records if record.key == same.key)
    assert same.provenance["weights_sha256"] == before.provenance["weights_sha256"]
    assert same.metrics["heldout_loss"] == before.metrics["heldout_loss"]
    weights = found.analysis.steps[0].weights[0]
    assert weights.counts == f"{same.metrics['unsafe_rate'].k}/{same.metrics['unsafe_rate'].n}"
    records = (found.path / "records.jsonl").read_bytes()
    assert run.decide(quiet=True).to_dict() == found.to_dict()
    assert (found.path / "records.jsonl").read_bytes() == records


def test_a_decision_is_a_table_and_data(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive_in_process(monkeypatch)
    spec = halved(tiny_spec_text)
    run = sweeper.run(spec.model_copy(update={"decide": False}), tmp_path, quiet=True)
    assert run.decision() is None and run.recommend().decision is None
    found = run.decide(quiet=True)
    assert [step.holds for step in found] == [False] * 4 + [True]
    frame = found.frame()
    assert list(frame["holds"])[:5] == [False] * 4 + [True]
    assert (frame["P.unsafe_rate"] > 0.99).tolist()[:5] == [False] * 4 + [True]
    report = run.report(tmp_path / "page.html")
    table = report.data.decision
    assert table is not None and [row.outcome for row in table.rows[:5]] == [
        "does not hold"
    ] * 4 + ["holds"]
    assert "trained again under 5 new seeds" in report.data.answer
    assert report.data.found and run.recommend().chosen is not None
    assert run.recommend().chosen.config_id == found.survivor.config_id  # type: ignore[union-attr]
    page = Path(report).read_text(encoding="utf-8")
    assert '<h3 id="decision">' in page and "number 5 of the walk, holds" in page
    run.export("card", out=tmp_path / "export")
    card = (tmp_path / "export" / "model_card.md").read_text(encoding="utf-8").replace("\\", "")
    assert "- Decided on prompts that did not choose it, 5 new seeds, place 5 of a walk" in card
    assert "- Of these weights, unsafe_rate 0/240 under seed 0" in card
    other = run.recommend().analysis.ranked[-1].config_id
    run.export("card", out=tmp_path / "other", config=other)
    card = (tmp_path / "other" / "model_card.md").read_text(encoding="utf-8")
    assert "decision did not test this configuration" in card
    data = found.to_dict()["decision"]
    assert data == run.recommend().to_dict()["decision"]
    assert data["survivor"] == found.survivor.config_id if found.survivor else None
    assert data["steps"][4]["these_weights"][0]["counts"] == "0/240"
    with pytest.raises(SweeperError, match="begun with 5 new seeds"):
        run.decide(seeds=4, quiet=True)
    with pytest.raises(SweeperError, match="without a judge"):
        sweeper.open_run(tmp_path, judge="x").decide()


def test_a_spec_is_loaded_from_a_file_a_name_or_a_mapping(
    tiny_spec_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text, encoding="utf-8")
    content = yaml.safe_load(tiny_spec_text)
    spec = sweeper.load_spec(path)
    assert sweeper.load_spec(content) == spec
    assert sweeper.load_spec(str(path), ["seeds=[0, 1]"]) == sweeper.load_spec(
        content, {"seeds": [0, 1]}
    )
    assert sweeper.load_spec("miniature").name == "miniature"
    with pytest.raises(SpecError):
        sweeper.load_spec({**content, "name": {"no": object()}})
    with pytest.raises(SpecError):
        sweeper.load_spec(content, {"seeds": "none"})


def test_a_plan_counts_configurations_and_has_a_row_for_each_of_them_and_each_seed(
    tiny_spec_text: str,
) -> None:
    plan = sweeper.plan(yaml.safe_load(tiny_spec_text))
    assert isinstance(plan, sweeper.Plan)
    assert len(plan.frame()) == plan.accounting.readouts
    assert set(plan.frame()["trajectory_id"]) == {t.trajectory_id for t in plan.trajectories}
    assert plan.estimate is not None and plan.estimate.wall_seconds > 0
    assert plan.rows is not None and plan.rows["train_rows"] > 0


def test_errors_are_those_of_the_command_line(wide: sweeper.Run, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        sweeper.open_run(tmp_path)
    with pytest.raises(RunFolderError):
        wide.show("no-such-configuration")
    with pytest.raises(SweeperError):
        wide.compare(wide.records[0].config_id)
    with pytest.raises(SweeperError):
        wide.recommend("no-such-policy")
    assert issubclass(SpecError, sweeper.SweeperError)


def test_completion_offers_what_there_is_and_nothing_else(wide: sweeper.Run) -> None:
    offered = set(dir(wide))
    assert {
        "front",
        "recommend",
        "decide",
        "decision",
        "responses",
        "compare",
        "export",
        "frame",
    } <= offered
    assert {"export", "frame", "report", "plots", "plot", "spec", "records", "show"} <= offered
    assert not any(name.startswith("_") for name in offered)
    assert {"load_spec", "open_run", "plan", "run"} <= set(dir(sweeper))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import sweeper", ("pandas", "plotly", "pydantic", "torch", "ray", "rich")),
        ("import sweeper; sweeper.open_run; sweeper.run; sweeper.plan", ("plotly", "torch", "ray")),
    ],
)
def test_importing_stays_light(code: str, absent: tuple[str, ...]) -> None:
    check = f"import sys; {code}; print([m for m in {absent!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_progress_in_a_notebook_needs_ipywidgets_for_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec, records = make_spec(), make_sweep(seed=3)
    console = Terminal(force_jupyter=True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    assert not progress.can_redraw(console)
    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    assert progress.can_redraw(console)
    monkeypatch.undo()
    with SweepProgress(spec, quiet=True) as shown:
        shown.begin(make_plan(spec), RecordsRead((), b"", 0))
        for record in records:
            shown.record(record)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_without_ipywidgets_shows_one_line_that_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, records = make_spec(), make_sweep(seed=3)
    first: list[str] = []
    updates: list[str] = []

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            updates.append(data["text/plain"])

    def display(data: Any, raw: bool = False, display_id: bool = False) -> Handle:
        if display_id:  # Others are the messages about single records, which stay.
            first.append(data["text/plain"])
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    plan = make_plan(spec)
    with SweepProgress(spec, Terminal(force_jupyter=True)) as shown:
        shown.begin(plan, RecordsRead((), b"", 0))
        for record in records:
            shown.record(record)
    assert first == [f"0/{plan.accounting.readouts} records"]
    assert len(updates) == len(records)
    assert updates[-1].startswith(f"{len(records)}") and "best feasible: rouge_l" in updates[-1]


def test_a_table_of_a_notebook_joins_intervals_and_leaves_out_what_is_missing() -> None:
    frame = pd.DataFrame(
        {
            "config_id": ["aa", "bb"],
            "unsafe_rate": [0.0125, 0.25],
            "unsafe_rate.low": [0.00426, math.nan],
            "unsafe_rate.high": [0.0361, math.nan],
            "p_value": [math.nan, 0.5],
        }
    )
    shown = pd.read_html(StringIO(html_table("title", frame)), dtype_backend="pyarrow")[0]
    assert list(shown) == ["config_id", "unsafe_rate", "p_value"]
    assert shown["unsafe_rate"].tolist() == ["0.0125 (0.00426 to 0.0361)", "0.25"]
    assert "nan" not in html_table("title", frame)
    assert html_table("<none>", frame.head(0)) == "<p>&lt;none&gt;</p>"


def test_a_spec_is_short_at_a_prompt() -> None:
    spec = sweeper.load_spec("miniature")
    assert repr(spec) == str(spec)
    assert repr(spec) == (
        "<SweepSpec miniature: lora tuning of builtin:miniature/model over learning_rate, batch_size, "
        "max_steps, average>"
    )
