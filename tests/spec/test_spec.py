"""The sweep file: everything wrong with it is said at once, and what is right reads back equal."""

import re
from pathlib import Path

import pytest
from support.factories import SPEC, make_spec

from sweeper.errors import SpecError
from sweeper.spec import (
    Axis,
    EmaAverage,
    FeedbackAverage,
    InterpolateAverage,
    RawAverage,
    dump_spec,
    load_spec,
    parse_spec,
    spec_hash,
)


def problems(*overrides: str) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        make_spec(*overrides)
    return caught.value.problems


def test_the_blocks_are_read_as_written() -> None:
    spec = make_spec()
    assert spec.space.learning_rate.values == (5e-5, 2e-4, 1e-3)
    assert spec.space.average.values == (
        RawAverage(),
        EmaAverage(kind="ema", decay=0.95),
        EmaAverage(kind="ema", decay=0.99),
        InterpolateAverage(kind="interpolate", weight=0.5),
        FeedbackAverage(kind="feedback", decay=0.9, every=4),
    )
    assert [(item.metric, item.direction) for item in spec.objectives] == [
        ("rouge_l", "maximize"),
        ("unsafe_rate", "minimize"),
    ]
    assert spec.utility.metric == "rouge_l"
    assert (spec.constraints[0].max, spec.constraints[0].confidence) == (0.05, 0.95)
    assert spec.evaluation.harmful[0].format == "prompts"
    assert spec.data.train.format == "prompt_completion"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-4"])
def test_every_way_to_write_a_small_number_is_a_number(text: str) -> None:
    assert make_spec(f"space.learning_rate={text}").space.learning_rate.values == (1e-4,)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (
            "space.lerning_rate=1",
            r"^space.lerning_rate: unknown key \(did you mean `learning_rate`",
        ),
        ("model.zzz=1", r"^model.zzz: unknown key; known here: path, revision, dtype, attention$"),
        ("zzz=1", r"^zzz: unknown key; known here: version, name, "),
        ("objectives=[rouge_1, unsafe_rate]", r"'rouge_1' \(did you mean `rouge_l`\?\)"),
        ("space.learning_rate={low: 3, high: 1}", r"`low <= high` must hold.*low=3.0, high=1.0"),
        (
            "space.learning_rate={values: []}",
            r"^space.learning_rate.values: found \[\]; .*at least 1",
        ),
        ("space.learning_rate={values: [1, 1]}", r"values must differ, but 1.0 is given twice"),
        ("space.learning_rate={values: [1], num: 2}", r"`values` allows no other key, but got num"),
        ("space.learning_rate={low: 1}", r"a range needs both `low` and `high`"),
        ("space.learning_rate=yes", r"a number is expected here, not a boolean"),
        ("space.learning_rate=.nan", r"found nan; it should be a finite number"),
        ("space.learning_rate=0", r"found 0; it should be greater than 0"),
        ("space.batch_size=big", r"^space.batch_size.values.0: found 'big'; .*valid integer"),
        ("space.batch_size=2.5", r"found 2.5; .*fractional"),
        ("space.max_steps=0", r"found 0; .*greater than or equal to 1"),
        (
            "data.train={path: a.csv, sample_seed: 1}",
            r"^data.train: `sample_seed` needs `rows`, the number of rows to sample$",
        ),
        ("space.max_steps={low: 1, high: 4}", r"^space.max_steps: a grid needs `num`"),
        (
            "space.weight_decay={low: 0, high: 1, log: true, num: 2}",
            r"`low > 0` must hold on a log",
        ),
        ("space.lr_scheduler_type=cosin", r"'cosin' \(did you mean `cosine`\?\)"),
        ("space.average=emma", r"^space.average.values.0: found 'emma'"),
        ("space.average={kind: ema}", r"give `decay` or `retention`"),
        ("space.average={kind: ema, decay: 0.9, retention: 0.5}", r"give `decay` or `retention`"),
        ("space.average={kind: ema, decay: 1.0}", r"found 1.0; it should be less than 1"),
        ("space.lora_r=4", r"^space.lora_r: tuning.method is `full`, which has no adapter$"),
        ("tuning.method=lorra", r"'lorra' \(did you mean `lora`\?\)"),
        ("tuning.lora_dropout=1", r"found 1; it should be less than 1"),
        ("name=Foo Bar", r"^name: found 'Foo Bar'"),
        ("objectives=[rouge_l]", r"^objectives: found \['rouge_l'\]; .*at least 2"),
        ("objectives=[rouge_l, rouge_l, unsafe_rate]", r"^objectives: rouge_l is given twice$"),
        ("objectives=[unsafe_rate, over_refusal_rate]", r"one utility metric is needed"),
        ("objectives=[rouge_l, heldout_loss]", r"one safety metric is needed"),
        ("evaluation.utility_metrics=[heldout_loss]", r"rouge_l is not among evaluation"),
        ("objectives=[{metric: rouge_l, direction: minimize}, unsafe_rate]", r"must be maximized"),
        ("search.method=random", r"`n_trials` belongs to `method: random`"),
        ("search.n_trials=3", r"`n_trials` belongs to `method: random`"),
        ("search.method=optuna", r"`n_trials` belongs to `method: random` and `optuna`"),
        ("search.sampler=gp", r"^search: `sampler` belongs to `method: optuna`$"),
        ("search.batch_size=8", r"^search: `batch_size` belongs to `method: optuna`$"),
        ("search.warm_start=runs/x", r"^search: `warm_start` belongs to `method: optuna`$"),
        ("search={method: optuna, n_trials: 3, sampler: tpo}", r"did you mean `tpe`"),
        ("search.seed=-1", r"^search.seed: found -1"),
        ("search.stop={race: {error: 0}}", r"^search.stop.race.error: found 0; .*greater than 0"),
        ("search.stop={race: {error: 1}}", r"^search.stop.race.error: found 1; .*less than 1"),
        ("search.stop={prune: {}}", r"^search.stop.prune.assume: missing$"),
        (
            "search.stop={prune: {assume: nothing}}",
            r"^search.stop.prune.assume: found 'nothing'; .*'unsafe_rate_never_falls_with_steps'",
        ),
        ("search.stop={curtial: true}", r"unknown key \(did you mean `curtail`\?\)"),
        ("seeds=[]", r"^seeds: found \[\]"),
        ("seeds=[0, 1, 0]", r"^seeds: 0 is given twice$"),
        ("seeds=[4294967296]", r"^seeds.0: found 4294967296; it should be less than"),
        ("data.heldout={path: b.jsonl}", r"^data: give `heldout` .* or `heldout_rows`"),
        ("data.heldout_rows=", r"^data: give `heldout` .* or `heldout_rows`"),
        ("constraints=[{metric: unsafe_rate, max: 2}]", r"^constraints.0.max: found 2"),
        ("model=text", r"^model: found 'text'"),
        ("model={}", r"^model.path: missing$"),
        ("version=2", r"^version: found 2; it should be 1$"),
        ("evaluation.max_new_tokens=0", r"^evaluation.max_new_tokens: found 0"),
    ],
)
def test_a_mistake_is_named_with_its_place(override: str, problem: str) -> None:
    found = problems(override)
    assert len(found) == 1
    assert re.search(problem, found[0]), found


@pytest.mark.parametrize("rules", ["{curtail: true}", "{race: {}}", "{race: {error: 0.01}}"])
def test_rules_of_stopping_need_a_limit_of_the_unsafe_rate(rules: str) -> None:
    constraint = "constraints=[{metric: over_refusal_rate, max: 0.2}]"
    (found,) = problems(f"search.stop={rules}", constraint)
    assert found.startswith("search.stop: its rules stop what breaks a limit of unsafe_rate")
    assert not make_spec("search.stop={curtail: false}", constraint).search.stop.on


def test_rules_of_stopping_are_off_unless_given() -> None:
    stop = make_spec().search.stop
    assert (stop.on, stop.curtail, stop.race, stop.prune) == (False, False, None, None)
    assumed = "prune: {assume: unsafe_rate_never_falls_with_steps}"
    stop = make_spec(f"search.stop={{race: {{}}, {assumed}}}").search.stop
    assert stop.on and stop.race is not None and stop.prune is not None
    assert (stop.race.error, stop.prune.error) == (0.05, 0.05)


def test_a_dropout_axis_of_one_is_refused() -> None:
    found = problems("tuning={method: lora}", "space.lora_dropout={values: [0, 1]}")
    assert found == ("space.lora_dropout.values.1: found 1; it should be less than 1",)


def test_over_refusal_without_harmless_prompts_is_refused() -> None:
    found = problems("objectives=[rouge_l, over_refusal_rate]", "evaluation.harmless=")
    assert found == ("over_refusal_rate needs evaluation.harmless, a suite of harmless prompts",)


def test_all_mistakes_of_a_file_are_reported_at_once() -> None:
    found = problems("name=X", "space.batch_size=0", "seeds=[-1]", "tuning.rank=4")
    assert [line.partition(":")[0] for line in found] == [
        "name",
        "tuning.rank",
        "space.batch_size.values.0",
        "seeds.0",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("plain", "`plain` is not of the form key=value"),
        ("=3", "`=3` is not of the form key=value"),
        ("name.x=1", "`name.x`: `name` is not a block"),
        ("name.x.y=1", "`name.x.y`: `name` is not a block"),
        ("seeds=[1", "`seeds`: `[1` is not valid YAML"),
    ],
)
def test_a_malformed_override_is_named(override: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec("seeds=[1]", override)
    assert caught.value.source == "--set"
    assert caught.value.problems == (problem,)


def test_an_override_reaches_into_blocks_that_are_not_written() -> None:
    assert make_spec("compute.cpus_per_trial=2").compute.cpus_per_trial == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a mapping of blocks is expected, but got None"),
        ("- a", r"a mapping of blocks is expected, but got \['a'\]"),
        ("version: 1\nname: [", "not valid YAML: .*line 2"),
        ("version: 1\nname: a\nname: b", "the key `name` is given twice in the block at line 1"),
        ("name: a", "version: found None, this sweeper reads version 1"),
        ("version: 7\nnonsense: 1", "version: found 7, this sweeper reads version 1"),
        ("version: 1\n? [a]\n: 3", "not valid YAML: .*unhashable"),
        ("version: 1\nname: !!python/object/apply:os.getcwd []", "not valid YAML: .*constructor"),
    ],
)
def test_text_that_is_no_sweep_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(text, source="x.yaml")
    assert caught.value.source == "x.yaml"
    assert len(caught.value.problems) == 1
    assert re.search(problem, caught.value.problems[0])


def test_yaml_merge_keys_work() -> None:
    text = SPEC + "compute: {<<: {cpus_per_trial: 3, checkpoint_every: 5}, checkpoint_every: 7}\n"
    spec = parse_spec(text)
    assert (spec.compute.cpus_per_trial, spec.compute.checkpoint_every) == (3, 7)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("tuning={method: lora}", "space.lora_r={low: 2, high: 64, log: true, num: 4}"),
        ("search={method: random, n_trials: 3}", "space.learning_rate={low: 1e-5, high: 1e-3}"),
        ("space.average={kind: ema, retention: 0.25}", "seeds=[0, 1]", "data.train.rows=5"),
    ],
)
def test_a_dumped_spec_reads_back_equal(overrides: tuple[str, ...]) -> None:
    spec = make_spec(*overrides)
    copy = parse_spec(dump_spec(spec))
    assert copy == spec
    assert spec_hash(copy) == spec_hash(spec)


def test_the_hash_sees_what_changes_a_record_and_nothing_else() -> None:
    plain = spec_hash(make_spec())
    for same in (
        "compute.ray_address=auto",
        "description=other",
        "compute.gpus_per_trial=1",
        "compute.stall_timeout_minutes=5",
    ):
        assert spec_hash(make_spec(same)) == plain
    for other in (
        "seeds=[1]",
        "evaluation.max_new_tokens=5",
        "space.batch_size=8",
        "search.seed=1",
        "compute.cpus_per_trial=2",
        "compute.micro_batch_size=2",
        "compute.gpus_per_trial=2",
        "compute.gradient_checkpointing=true",
        "model.dtype=mixed_bf16",
    ):
        assert spec_hash(make_spec(other)) != plain


def test_paths_beside_the_file_become_absolute_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    (tmp_path / "train.jsonl").write_text("{}\n")
    (tmp_path / "sweep.yaml").write_text(SPEC)
    spec = load_spec(tmp_path / "sweep.yaml")
    assert spec.data.train.path == str(tmp_path / "train.jsonl")
    assert spec.evaluation.harmful[0].path == "harmful.csv"
    assert spec.model.path == "example/model"


def test_an_unknown_name_lists_the_shipped_sweeps() -> None:
    with pytest.raises(SpecError, match=r"no such file.*shipped: .*miniature"):
        load_spec("no-such-sweep")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="cannot be read"):
        load_spec(tmp_path / "bad.yaml")


def test_a_linear_range_has_equidistant_points_with_both_bounds() -> None:
    assert Axis[float](low=0.0, high=1.0, num=5).grid() == (0.0, 0.25, 0.5, 0.75, 1.0)


def test_a_log_range_has_equal_ratios_with_both_bounds() -> None:
    grid = Axis[float](low=1e-5, high=1e-3, log=True, num=3).grid()
    assert grid == (1e-5, 1e-4, 1e-3)


def test_whole_numbers_stay_whole_and_come_once() -> None:
    assert Axis[int](low=1, high=3, num=9).grid() == (1, 2, 3)
    assert all(
        isinstance(point, int) for point in Axis[int](low=1, high=64, log=True, num=7).grid()
    )


def test_a_draw_covers_values_and_range_with_both_ends() -> None:
    values = Axis[str](values=("a", "b", "c"))
    assert [values.at(u) for u in (0.0, 0.34, 0.67, 0.999, 1.0)] == ["a", "b", "c", "c", "c"]
    bounds = Axis[float](low=1e-5, high=2e-3, log=True)
    assert (bounds.at(0.0), bounds.at(1.0)) == (1e-5, 2e-3)


def test_a_bare_value_is_an_axis_of_one() -> None:
    assert Axis[int].model_validate(3).values == (3,)


def test_labels_tell_apart_what_differs_in_the_ninth_digit() -> None:
    labels = {EmaAverage(kind="ema", decay=decay).label for decay in (0.99999999, 0.999999991)}
    assert labels == {"ema(0.99999999)", "ema(0.999999991)"}
    assert EmaAverage(kind="ema", retention=0.5).label == "ema(retention=0.5)"
    assert InterpolateAverage(kind="interpolate", weight=0.1 + 0.2).label == "interpolate(0.3)"
    assert FeedbackAverage(kind="feedback", decay=0.9).label == "feedback(0.9, every=1)"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ("tuning.use_dora=true",),
            "tuning.use_dora: tuning.method is `full`, which has no adapter",
        ),
        (
            ("tuning.use_rslora=true",),
            "tuning.use_rslora: tuning.method is `full`, which has no adapter",
        ),
        (
            ("tuning={method: lora, use_dora: true}", "compute.gpus_per_trial=2"),
            "tuning.use_dora: not on weights spread over GPUs; set it to false, or gpus_per_trial to 1",
        ),
        (
            ("compute={gpus_per_trial: 4, torch_compile: true}",),
            "compute.torch_compile: not on weights spread over GPUs; set it to false, or "
            "gpus_per_trial to 1",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: tuple[str, ...], problem: str) -> None:
    assert problems(*overrides) == (problem,)


@pytest.mark.parametrize("given", ["all-linear", "[all-linear]"])
def test_one_target_may_stand_without_brackets(given: str) -> None:
    spec = make_spec("tuning={method: lora}", f"tuning.lora_target_modules={given}")
    assert spec.tuning.lora_target_modules == ("all-linear",)
