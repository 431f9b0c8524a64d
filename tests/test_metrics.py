"""What a metric is decides its direction, its interval and its place in results, in one table."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.factories import base_record, make_record, make_spec

from sweeper.analysis import Candidate, find_front, recommend
from sweeper.errors import SpecError
from sweeper.estimate import Tokens, memory_facts
from sweeper.estimate.inputs import counted_characters
from sweeper.estimate.measured_rates import count_tokens, shortened
from sweeper.export.header import measured
from sweeper.memory import ModelShape
from sweeper.metrics import (
    KINDS,
    METRICS,
    SAFETY_METRICS,
    UTILITY_METRICS,
    direction_of,
    harness_metric,
    is_harness,
    is_sampled,
    is_utility,
)
from sweeper.planning import make_plan, make_tasks
from sweeper.report import render, report_data
from sweeper.search.study import write_study
from sweeper.spec import SweepSpec
from sweeper.stats import wilson_interval
from sweeper.store.folder import RunFolder
from sweeper.store.records import Metric
from sweeper.task import HarnessSettings, TrajectoryTask

HARNESS = "lm_eval/arc/acc"
TASKS = "evaluation.lm_eval={tasks: [arc, wiki], limit: 40}"
ALL = f"evaluation.utility_metrics=[{', '.join(UTILITY_METRICS)}]"


def spec_for(objective: str) -> SweepSpec:
    return make_spec(TASKS, ALL, f"objectives=[{objective}, unsafe_rate]")


def test_every_metric_is_of_one_purpose() -> None:
    assert METRICS == UTILITY_METRICS + SAFETY_METRICS
    assert {name for name, kind in KINDS.items() if kind.direction == "minimize"} == {
        "heldout_loss",
        "perplexity",
        "unsafe_rate",
        "over_refusal_rate",
    }
    assert [name for name in METRICS if is_utility(name)] == list(UTILITY_METRICS)


@pytest.mark.parametrize(
    ("name", "harness", "direction"),
    [
        ("lm_eval/arc/acc", True, "maximize"),
        ("lm_eval/arc/acc_norm", True, "maximize"),
        ("lm_eval/gsm8k/exact_match/strict-match", True, "maximize"),
        ("lm_eval/wiki/word_perplexity", True, None),
        ("lm_eval/wiki/my_acc", True, None),
        ("lm_eval/arc", False, None),
        ("lm_eval//acc", False, None),
        ("lm_eval/a/b/c/d", False, None),
        ("perplexity", False, "minimize"),
        ("token_accuracy", False, "maximize"),
        ("unsafe_rate/zou2023", False, None),
    ],
)
def test_names_say_what_a_metric_is(name: str, harness: bool, direction: str | None) -> None:
    assert is_harness(name) == harness
    assert direction_of(name) == direction


def test_a_name_is_made_of_task_metric_and_filter() -> None:
    assert harness_metric("arc", "acc") == "lm_eval/arc/acc"
    assert harness_metric("gsm8k", "exact_match", "strict") == "lm_eval/gsm8k/exact_match/strict"


@pytest.mark.parametrize(
    ("name", "counted", "sampled"),
    [
        ("heldout_loss", False, False),
        ("perplexity", False, False),
        ("token_accuracy", True, False),
        ("rouge_l", False, True),
        ("chrf", False, True),
        ("exact_match", True, True),
        ("unsafe_rate/zou2023", True, True),
        ("degenerate_rate/harmful", True, True),
        (HARNESS, True, True),
        (HARNESS, False, False),
    ],
)
def test_intervals_are_for_independent_prompts_alone(
    name: str, counted: bool, sampled: bool
) -> None:
    assert is_sampled(name, counted=counted) == sampled


@pytest.mark.parametrize(
    ("objective", "direction"),
    [
        ("perplexity", "minimize"),
        ("token_accuracy", "maximize"),
        (HARNESS, "maximize"),
        ("{metric: lm_eval/wiki/word_perplexity, direction: minimize}", "minimize"),
        ("{metric: lm_eval/wiki/sense, direction: maximize}", "maximize"),
    ],
)
def test_an_objective_has_the_direction_of_its_metric(objective: str, direction: str) -> None:
    spec = spec_for(objective)
    assert spec.utility.direction == direction
    assert spec.utility == spec.objectives[0]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            [TASKS, "objectives=[lm_eval/wiki/word_perplexity, unsafe_rate]"],
            r"^objectives.0: lm_eval/wiki/word_perplexity: its direction does not follow from its name; "
            r"give \{metric: .*, direction: minimize\}, or maximize$",
        ),
        (
            [TASKS, f"objectives=[{{metric: {HARNESS}, direction: minimize}}, unsafe_rate]"],
            r"^objectives.0: lm_eval/arc/acc must be maximized, but got direction='minimize'$",
        ),
        (
            [f"objectives=[{HARNESS}, unsafe_rate]"],
            r"^objectives: lm_eval/arc/acc needs evaluation.lm_eval, with its task among `tasks`$",
        ),
        (
            ["objectives=[lm_eval/arc, unsafe_rate]"],
            r"^objectives.0.metric: found 'lm_eval/arc'; known: heldout_loss, .*lm_eval/TASK/METRIC$",
        ),
        (
            ["objectives=[perplexity, unsafe_rate]"],
            r"^objectives: perplexity is not among evaluation.utility_metrics",
        ),
        (
            ["evaluation.answer_extractor=gsm8k"],
            r"^evaluation.answer_extractor: gsm8k is for exact_match, which is not among",
        ),
    ],
)
def test_what_nobody_measures_is_refused(overrides: list[str], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(*overrides)
    assert len(caught.value.problems) == 1
    assert re.search(problem, caught.value.problems[0]), caught.value.problems


def pair(name: str, mine: Metric, base: Metric) -> Candidate:
    """A candidate beside an untouched model, both measured in one metric."""
    records = [base_record(metrics={name: base}), make_record(metrics={name: mine})]
    direction = "maximize" if direction_of(name) == "maximize" else "minimize"
    front = find_front(records, spec_for(f"{{metric: {name}, direction: {direction}}}"))
    return next(item for item in front.candidates if item.role == "candidate")


@pytest.mark.parametrize(
    ("name", "mine", "base", "gain"),
    [
        ("perplexity", Metric(7.9, 900), Metric(8.0, 900), True),
        ("perplexity", Metric(8.0, 900), Metric(8.0, 900), False),
        ("token_accuracy", Metric.rate(401, 900), Metric.rate(400, 900), True),
        ("token_accuracy", Metric.rate(399, 900), Metric.rate(400, 900), False),
        (HARNESS, Metric.rate(42, 100), Metric.rate(40, 100), False),
        (HARNESS, Metric.rate(60, 100), Metric.rate(40, 100), True),
        (HARNESS, Metric(0.42, 100), Metric.rate(40, 100), True),
        ("lm_eval/wiki/word_perplexity", Metric(20.0, 9), Metric(21.0, 9), True),
        ("lm_eval/wiki/errors", Metric.rate(38, 100), Metric.rate(40, 100), False),
        ("lm_eval/wiki/errors", Metric.rate(20, 100), Metric.rate(40, 100), True),
    ],
)
def test_gain_is_by_bound_for_counts_over_prompts_and_by_value_for_the_rest(
    name: str, mine: Metric, base: Metric, gain: bool
) -> None:
    found = pair(name, mine, base)
    assert found.gain is gain, found.gain_evidence
    bounded = name not in KINDS and mine.k is not None
    assert ("difference at least" in found.gain_evidence) == bounded
    assert found.counts(name) == ("" if mine.k is None else f"{mine.k}/{mine.n}")
    wilson = wilson_interval(mine.k, mine.n) if bounded and mine.k is not None else None
    assert found.interval(name) == (wilson and tuple(wilson))


def page(objective: str, better: Metric, worse: Metric, base: Metric) -> tuple[str, str]:
    """The report on two candidates and the base, and the id of the recommended one."""
    name = objective.removeprefix("{metric: ").partition(",")[0]
    other = {"lm_eval/wiki/f1": Metric(0.5, 40), "lm_eval/boats/acc": Metric(0.5, 40)}
    records = [
        base_record(metrics={name: base, **other}),
        make_record(identity="better", metrics={name: better, **other}, max_steps=40),
        make_record(identity="worse", metrics={name: worse, **other}, max_steps=80),
    ]
    spec = spec_for(objective)
    chosen = recommend(find_front(records, spec), spec).chosen
    assert chosen is not None
    return render(report_data(RunFolder(Path("/x/run-1")), records, spec, {})), chosen.config_id


@pytest.mark.parametrize(
    ("objective", "values", "side", "shown"),
    [
        ("perplexity", (5.0, 6.0, 8.0), "down", ["5.000", "8.000"]),
        ("token_accuracy", (0.75, 0.5, 0.25), "up", ["0.750", "75/100"]),
        (HARNESS, (0.75, 0.5, 0.25), "up", ["0.750", "75/100, 0.657 to 0.825"]),
        (
            "{metric: lm_eval/wiki/word_perplexity, direction: minimize}",
            (5.0, 6.0, 8.0),
            "down",
            ["5.000"],
        ),
    ],
)
def test_the_report_shows_the_metric_and_which_way_is_better(
    objective: str, values: tuple[float, ...], side: str, shown: list[str]
) -> None:
    rate = side == "up"
    made = [Metric.rate(round(100 * v), 100) if rate else Metric(v, 100) for v in values]
    text, chosen = page(objective, *made)
    assert chosen == "better"
    assert f"Better is {side} and to the left" in text
    for part in [*shown, "lm_eval/wiki/f1"]:
        assert part in text, part
    assert '"name":"lm_eval/wiki/f1"' in text
    assert '"name":"lm_eval/boats/acc"' not in text  # Only tasks of the spec have columns.


def test_optuna_and_exports_know_the_metric() -> None:
    records = [make_record(identity="a", metrics={HARNESS: Metric.rate(30, 40)})]
    spec = spec_for(HARNESS)
    front = find_front(records, spec)
    study = write_study(front, spec)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.best_trials[0].values == [0.75, 2 / 256]
    assert "lm_eval/arc/acc 0.75 (95 % interval 0.5981 to 0.8581, n=40)" in measured(
        front.candidates[0]
    )


def asking(spec: SweepSpec, *names: str) -> TrajectoryTask:
    task = make_tasks(make_plan(spec), spec, str)[0]
    return replace(task, evaluation=replace(task.evaluation, utility_metrics=names))


@pytest.mark.parametrize(
    ("names", "answers", "reads"),
    [
        (("heldout_loss",), 0, True),
        (("perplexity",), 0, True),
        (("token_accuracy",), 0, True),
        (("exact_match",), 6, False),
        (("rouge_l", "perplexity"), 6, True),
    ],
)
def test_what_is_counted_follows_from_what_is_asked(
    tiny_spec: SweepSpec, names: tuple[str, ...], answers: int, reads: bool
) -> None:
    task = asking(tiny_spec, *names)
    for found in (counted_characters(task), count_tokens(task)):
        assert found.prompts == 14 + answers
        assert (found.heldout_tokens > 0) == reads
        assert "lm_eval" not in found.source


@pytest.mark.parametrize("name", UTILITY_METRICS)
def test_memory_of_reading_is_counted_for_likelihoods(name: str) -> None:
    spec = make_spec(f"evaluation.utility_metrics=[{name}]", f"objectives=[{name}, unsafe_rate]")
    shape = ModelShape(2, 32, 64, 4, 4, 8, 352, tied=False)
    tokens = Tokens(50.0, 60, 10, 200.0, 30, 80.0, 300.0, "given")
    facts = memory_facts(make_plan(spec).trajectories[0], spec, shape, tokens, "cpu")
    assert facts.heldout_length == 60 * (KINDS[name].source == "likelihood")


def test_harness_tasks_are_in_no_estimate_and_it_says_so(tiny_spec: SweepSpec) -> None:
    task = asking(tiny_spec, "perplexity")
    settings = HarnessSettings(("arc",))
    task = replace(task, evaluation=replace(task.evaluation, lm_eval=settings))
    for found in (counted_characters(task), count_tokens(task)):
        assert found.source.endswith("; the lm_eval tasks are NOT counted")
    assert shortened(task, 2, 2).evaluation.lm_eval is None
