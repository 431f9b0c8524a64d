"""Published figures: where they are used, that the plan says so, and trials spread over several GPUs."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_spec
from support.hub_cache import use_cache
from support.world import World

from sweeper.cli.app import _run
from sweeper.data.formats import examples_of
from sweeper.data.load import load_prompts
from sweeper.data.rows import read_rows
from sweeper.errors import DataError
from sweeper.estimate import (
    GPUS,
    ROWS,
    SHAPES,
    SUITES,
    Tokens,
    analytic_rates,
    published_prompts,
    published_rows,
)
from sweeper.estimate.inputs import Machine, counted_characters, on_gpus, plan_estimate
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec
from sweeper.task import SUITES as SUITE_NAMES
from sweeper.task import DataSource, PromptSuite, TrajectoryTask, Tuning

SHARED = Path(__file__).parents[3] / "shared" / "data"
H100 = GPUS[2]


@pytest.fixture
def empty_cache(no_gpu: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No model and no data set is on this machine, and there is no GPU."""
    use_cache(monkeypatch, tmp_path / "hub", offline=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def task_of(spec: SweepSpec) -> TrajectoryTask:
    return make_tasks(make_plan(spec), spec, str)[0]


ALPACA = (
    "data.train={path: tatsu-lab/alpaca, format: alpaca}",
    "data.heldout_rows=200",
    "evaluation.harmful=advbench",
    "evaluation.harmless=xstest-safe",
)


def test_every_suite_has_figures() -> None:
    assert set(SUITES) == set(SUITE_NAMES)


def test_shapes_have_the_parameters_of_the_model_cards() -> None:
    counts = {name.partition("/")[2]: shape.parameters for name, shape in SHAPES.items()}
    assert counts == {
        "Llama-2-7b-chat-hf": 6_738_415_616,
        "Llama-3.1-8B-Instruct": 8_030_261_248,
        "Llama-3.2-1B-Instruct": 1_235_814_400,
        "Llama-3.2-3B-Instruct": 3_212_749_824,
    }


def test_rows_and_halves_are_those_asked_for() -> None:
    source = DataSource("tatsu-lab/alpaca", "alpaca")
    found = published_rows(source)
    assert found == ROWS["tatsu-lab/alpaca"]
    assert published_rows(replace(source, rows=50)) == found._replace(rows=50)
    assert published_rows(replace(source, rows=10**6)) == found
    assert published_rows(replace(source, where={"a": "b"})) is None
    assert published_rows(replace(source, path="own/rows")) is None
    suite = PromptSuite(suite="advbench")
    assert published_prompts(suite) == [18.3] * 266
    assert len(published_prompts(replace(suite, prompt_split="all")) or ()) == 520
    assert len(published_prompts(replace(suite, prompt_split="confirm", rows=9)) or ()) == 9
    assert published_prompts(replace(suite, path="own.csv")) is None
    assert published_prompts(PromptSuite("own.csv")) is None


@pytest.mark.parametrize(
    ("suite", "file"),
    [
        ("advbench", "advbench_harmful_behaviors.csv"),
        ("xstest-safe", "xstest_prompts.csv"),
        ("xstest-unsafe", "xstest_prompts.csv"),
    ],
)
def test_suites_that_are_at_hand_have_the_figures_of_the_table(suite: str, file: str) -> None:
    path = SHARED / file
    if not path.is_file():
        pytest.skip("the real data sets are not beside this checkout")
    every: list[float] = []
    for half in ("search", "confirm"):
        source = PromptSuite(str(path), suite=suite, prompt_split=half)
        lengths = [len(prompt.text) / 4 for prompt in load_prompts(source)]
        assert len(lengths) == getattr(SUITES[suite], half)
        every += lengths
    assert sum(every) / len(every) == pytest.approx(SUITES[suite].tokens, abs=0.1)


def test_rows_that_are_at_hand_have_the_figures_of_the_table() -> None:
    path = SHARED / "alpaca_1k.json"
    if not path.is_file():
        pytest.skip("the real data sets are not beside this checkout")
    source = DataSource(str(path), "alpaca")
    rows = list(examples_of(source, read_rows(source)).values())
    mean = sum(min(512, row.characters / 4) for row in rows) / len(rows)
    assert mean == pytest.approx(ROWS["tatsu-lab/alpaca"].row_tokens, rel=0.02)


@pytest.mark.usefixtures("empty_cache")
def test_a_sweep_of_published_names_is_counted_by_hand() -> None:
    found = counted_characters(task_of(make_spec(*ALPACA)))
    assert found.per_row == ROWS["tatsu-lab/alpaca"].row_tokens
    assert found.prompts == 266 + 118 + 200
    prompts = 266 * 18.3 + 118 * 11.1 + 200 * 88.9
    assert found.prompt_tokens == pytest.approx(prompts)
    assert found.heldout_tokens == pytest.approx(200 * 88.9)
    assert found.rows is None
    assert (
        "PUBLISHED FIGURES of tatsu-lab/alpaca, advbench, xstest-safe: run `sweeper" in found.source
    )
    short = make_spec(*ALPACA, "data.max_length=60")
    assert counted_characters(task_of(short)).per_row == 60


@pytest.mark.usefixtures("empty_cache")
def test_what_is_at_hand_is_read_and_what_nobody_knows_is_refused(
    tiny_spec: SweepSpec, tiny_world: World
) -> None:
    mixed = task_of(tiny_spec)
    (harmful,) = mixed.evaluation.harmful
    suite = PromptSuite(suite="advbench")
    evaluation = replace(mixed.evaluation, harmful=(harmful, suite))
    found = counted_characters(replace(mixed, evaluation=evaluation))
    plain = counted_characters(mixed)
    assert found.prompts == plain.prompts + 266
    assert (found.per_row, found.rows) == (plain.per_row, plain.rows)
    assert "FIGURES of advbench:" in found.source
    assert "PUBLISHED" not in plain.source
    assert counted_characters(mixed, look=False) == plain
    far = replace(mixed.data, train=DataSource("tatsu-lab/alpaca", "alpaca"))
    heldout = counted_characters(replace(mixed, data=far))
    assert heldout.heldout_tokens == plain.heldout_tokens
    near = replace(mixed.data, heldout=far.train)
    assert counted_characters(replace(mixed, data=near)).per_row == plain.per_row
    unknown = replace(mixed.data, train=DataSource("own/none"))
    with pytest.raises(DataError, match="planning downloads nothing"):
        counted_characters(replace(mixed, data=unknown))


@pytest.mark.usefixtures("empty_cache")
def test_plan_shows_an_estimate_from_published_figures_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "llama31_8b_alpaca_lora", "--json"]
    monkeypatch.setattr(sys, "argv", ["sweeper", *words])
    assert _run() == 0
    estimate = json.loads(capsys.readouterr().out)["estimate"]
    said = estimate["tokens"]["source"]
    assert (
        "PUBLISHED FIGURES of tatsu-lab/alpaca, advbench, xstest-safe: run `sweeper prefetch`"
        in said
    )
    assert said.count("the shape of meta-llama/Llama-3.1-8B-Instruct is the published one") == 1
    monkeypatch.setattr(sys, "argv", ["sweeper", *words[:2]])
    assert _run() == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no estimate" not in out
    assert "ESTIMATED FROM PUBLISHED FIGURES" in out


TOKENS = Tokens(100.0, 512, 64, 2000.0, 512, 8192.0, 0.0, "given")


def rates(processes: int, **changes: Any) -> Any:
    shape = SHAPES["meta-llama/Llama-3.1-8B-Instruct"]
    given = {"evaluation_rows": 32, "processes": processes, **changes}
    return analytic_rates(shape, Tuning("full"), "mixed_bf16", H100, TOKENS, **given)


def test_gpus_that_share_a_trial_divide_the_arithmetic_and_gather_the_weights() -> None:
    one, four = rates(1), rates(4)
    assert four.train_token_seconds == pytest.approx(one.train_token_seconds / 4)
    assert four.readout_seconds == pytest.approx(one.readout_seconds / 4)
    gather = 4 * 8_030_261_248 * 3 / 4 / (4.5e11 * 0.7)
    assert four.step_seconds - one.step_seconds == pytest.approx(3 * gather)
    forward = one.readout_seconds / TOKENS.prompt_tokens
    difference = four.generate_token_seconds - one.generate_token_seconds
    # 64 prompts are two batches, so that two of the four answer side by side.
    decode = 32 * (one.generate_token_seconds - forward)
    assert difference == pytest.approx((gather - decode) / 64 - forward * 3 / 4)


@pytest.mark.usefixtures("empty_cache")
def test_gpu_hours_of_a_spread_trial_count_every_gpu() -> None:
    machine = Machine((H100,) * 4, 16)

    def sweep(gpus: int) -> SweepSpec:
        return make_spec(
            *ALPACA,
            "model.path=meta-llama/Llama-3.2-3B-Instruct",
            f"compute={{gpus_per_trial: {gpus}, micro_batch_size: 2}}",
            "evaluation.batch_size=16",
        )

    def made(gpus: int) -> Any:
        return plan_estimate(make_plan(sweep(gpus)), sweep(gpus), machine=machine, workers=1)

    one, four = made(1), made(4)
    assert one.gpu_hours == pytest.approx(one.worker_seconds / 3600)
    assert four.gpu_hours == pytest.approx(4 * four.worker_seconds / 3600)
    assert one.worker_seconds / 4 < four.worker_seconds
    assert four.train_seconds < one.train_seconds
    assert four.memory.resident_bytes < one.memory.resident_bytes / 3
    (whole,) = on_gpus(make_plan(sweep(1)), sweep(1), one.tokens, machine)
    (shared,) = on_gpus(make_plan(sweep(4)), sweep(4), four.tokens, machine)
    assert (whole.trials, shared.trials) == (0, 1)
    assert shared.gpu_hours == pytest.approx(four.gpu_hours)
    assert whole.gpu_hours == pytest.approx(one.gpu_hours)
