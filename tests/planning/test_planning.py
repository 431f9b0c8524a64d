"""Which configurations share an optimizer path, which controls stand beside them, and what it costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.factories import make_spec

from sweeper.errors import SpecError
from sweeper.planning import (
    Configuration,
    Plan,
    Role,
    Trajectory,
    default_control,
    make_packs,
    make_plan,
    make_tasks,
)
from sweeper.spec import parse_spec
from sweeper.task import Average, Feedback, Segment

ONE_RATE = "space.learning_rate=1e-4"
ONE_BATCH = "space.batch_size=16"
RAW = "space.average=raw"
STEPS = "space.max_steps={values: [4, 8, 16]}"
SMALL = (ONE_RATE, ONE_BATCH, RAW, STEPS)


def plan_of(*overrides: str) -> Plan:
    return make_plan(make_spec(*overrides))


def small(*overrides: str) -> Plan:
    return plan_of(*SMALL, *overrides)


def of_role(plan: Plan, role: Role) -> list[Configuration]:
    return [item for item in plan.configurations if item.role == role]


def carrying(plan: Plan, role: Role = "candidate") -> list[Trajectory]:
    """The trajectories that carry at least one configuration of a role."""
    return [t for t in plan.trajectories if any(c.role == role for c in t.configurations)]


@pytest.mark.parametrize("scheduler", ["constant", "constant_with_warmup", "inverse_sqrt"])
def test_step_counts_share_a_path_under_a_prefix_stable_schedule(scheduler: str) -> None:
    plan = small(f"space.lr_scheduler_type={scheduler}", "space.warmup_steps=2")
    (only,) = carrying(plan)
    assert [item.step for item in only.configurations] == [4, 8, 16]
    assert only.segments == (Segment(0, 16, 16),)
    assert only.steps == 16
    assert plan.accounting.notes == ()


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_step_counts_share_nothing_under_a_stretching_schedule_and_the_note_says_so(
    scheduler: str,
) -> None:
    plan = small(f"space.lr_scheduler_type={scheduler}")
    found = carrying(plan)
    assert [item.segments for item in found] == [
        (Segment(0, 4, 4),),
        (Segment(0, 8, 8),),
        (Segment(0, 16, 16),),
    ]
    (note,) = plan.accounting.notes
    assert scheduler in note
    assert "share nothing: 28 optimizer steps" in note
    assert "constant_with_warmup would need 16" in note
    assert "warmup_stable_decay" in note


def test_the_note_counts_seeds_and_stays_away_where_there_is_one_step_count() -> None:
    (note,) = small("space.lr_scheduler_type=cosine", "seeds=[0, 1]").accounting.notes
    assert "56 optimizer steps" in note and "would need 32" in note
    assert small("space.lr_scheduler_type=cosine", "space.max_steps=8").accounting.notes == ()


def test_wsd_shares_the_trunk_and_branches_one_tail_per_step_count() -> None:
    plan = small("space.lr_scheduler_type=wsd", "space.decay_steps=0.25")
    (only,) = carrying(plan)
    assert only.segments == (
        Segment(0, 12, 13, decay_steps=1),
        Segment(3, 4, 4, decay_steps=1),
        Segment(6, 8, 8, decay_steps=2),
        Segment(12, 16, 16, decay_steps=4),
    )
    assert only.steps == 12 + 1 + 2 + 4


def test_wsd_tails_of_different_length_share_one_trunk() -> None:
    plan = small("space.lr_scheduler_type=wsd", "space.decay_steps={values: [1, 3]}")
    (only,) = carrying(plan)
    starts = [(item.start, item.stop) for item in only.segments]
    assert starts == [(0, 15), (1, 4), (3, 4), (5, 8), (7, 8), (13, 16), (15, 16)]


def test_a_wsd_readout_lies_on_its_own_tail() -> None:
    spec = make_spec(*SMALL, "space.lr_scheduler_type=wsd", "space.decay_steps={values: [1, 3]}")
    task = next(t for t in make_tasks(make_plan(spec), spec, str) if len(t.segments) > 1)
    assert len(task.readouts) == 6
    for readout in task.readouts:
        tail = task.segments[readout.segment]
        assert readout.segment > 0
        assert tail.stop == readout.step == readout.config["max_steps"]
        assert tail.stop - tail.start == readout.config["decay_steps"]


def test_averages_share_the_path_of_their_raw_twin() -> None:
    averages = "[raw, {kind: ema, decay: 0.5}, {kind: interpolate, weight: 0.25}]"
    plan = plan_of(ONE_RATE, ONE_BATCH, STEPS, f"space.average={{values: {averages}}}")
    (only,) = carrying(plan)
    own = [item for item in only.configurations if item.role == "candidate"]
    assert len(own) == 9
    assert {item.average for item in own} == {
        Average(),
        Average("ema", decay=0.5),
        Average("interpolate", weight=0.25),
    }
    assert only.steps == 16


def test_a_fed_back_average_is_its_own_path_with_its_learning_rate_twin() -> None:
    plan = plan_of(
        "space.learning_rate=1e-3",
        ONE_BATCH,
        "space.max_steps=8",
        "space.average={values: [raw, {kind: feedback, decay: 0.9, every: 2}]}",
    )
    raw, fed = carrying(plan)
    assert (raw.settings.feedback, fed.settings.feedback) == (None, Feedback(0.9, 2))
    assert [item.average for item in fed.configurations] == [Average()]
    assert fed.configurations[0].values["average"] == "feedback(0.9, every=2)"
    (twin,) = of_role(plan, "learning_rate_control")
    assert twin.settings.learning_rate == 1e-4
    assert (twin.settings.feedback, twin.average, twin.step) == (None, Average(), 8)
    (path,) = carrying(plan, "learning_rate_control")
    assert path not in (raw, fed)


def test_retention_resolves_to_its_steps_th_root() -> None:
    plan = small("space.average={kind: ema, retention: 0.25}")
    own = of_role(plan, "candidate")
    decays = {item.step: item.average.decay for item in own}
    assert decays == {step: 0.25 ** (1 / step) for step in (4, 8, 16)}
    assert {item.values["average"] for item in own} == {"ema(retention=0.25)"}
    (only,) = carrying(plan)
    assert only.steps == 16
    weights = {item.average.weight for item in of_role(plan, "interpolation_control")}
    assert weights == {0.25}


def test_warmup_ratios_that_resolve_differently_do_not_share() -> None:
    warm = "space.lr_scheduler_type=constant_with_warmup"
    found = carrying(small(warm, "space.warmup_steps=0.25"))
    assert [(item.settings.warmup_steps, item.steps) for item in found] == [(1, 4), (2, 8), (4, 16)]
    (shared,) = carrying(small(warm, "space.warmup_steps=0.05"))
    assert (shared.settings.warmup_steps, shared.steps) == (1, 16)


def test_a_constant_schedule_has_no_warmup_and_points_that_coincide_are_counted_once() -> None:
    plan = small("space.warmup_steps={values: [0, 3]}")
    assert [item.settings.warmup_steps for item in of_role(plan, "candidate")] == [0, 0, 0]


def test_a_warmup_and_decay_longer_than_the_run_are_refused() -> None:
    with pytest.raises(SpecError, match=r"warmup_steps 3 \+ decay_steps 2 exceed max_steps 4"):
        small("space.lr_scheduler_type=wsd", "space.warmup_steps=3", "space.decay_steps=2")


@pytest.mark.parametrize(
    "axis",
    [
        "learning_rate={values: [1e-4, 2e-4]}",
        "batch_size={values: [8, 16]}",
        "weight_decay={values: [0, 0.1]}",
        "adam_beta1={values: [0.9, 0.8]}",
        "adam_beta2={values: [0.99, 0.999]}",
        "adam_epsilon={values: [1e-8, 1e-6]}",
        "max_grad_norm={values: [0, 1]}",
        "lr_scheduler_type={values: [constant, inverse_sqrt]}",
        "lora_r={values: [4, 8]}",
        "lora_alpha={values: [8, 16]}",
        "lora_dropout={values: [0, 0.1]}",
    ],
)
def test_everything_that_changes_a_gradient_keeps_paths_apart(axis: str) -> None:
    plan = small("tuning={method: lora}", f"space.{axis}")
    assert len(carrying(plan)) == 2
    assert len(of_role(plan, "candidate")) == 6


def test_the_untouched_base_model_is_read_once_and_costs_no_step() -> None:
    plan = small()
    (base,) = of_role(plan, "base")
    (path,) = carrying(plan, "base")
    assert (base.step, base.average, path.steps) == (0, Average(), 0)
    assert path.configurations == (base,)


@pytest.mark.parametrize(("method", "rate"), [("full", 2e-5), ("lora", 2e-4)])
def test_the_trainers_default_runs_for_the_largest_step_count(method: str, rate: float) -> None:
    (default,) = of_role(small(f"tuning={{method: {method}}}"), "default")
    settings = default.settings
    assert (settings.learning_rate, settings.batch_size, default.step) == (rate, 8, 16)
    assert (settings.lr_scheduler_type, settings.weight_decay) == ("linear", 0.0)


def test_an_ema_is_held_against_its_raw_and_its_interpolation_twin() -> None:
    plan = small("space.average={kind: ema, decay: 0.5}")
    assert {item.step for item in of_role(plan, "unaveraged_control")} == {4, 8, 16}
    assert {item.average for item in of_role(plan, "unaveraged_control")} == {Average()}
    # 0.5**16 = 1.5e-5 of theta_0 is nothing: no twin there.
    twins = {item.step: item.average.weight for item in of_role(plan, "interpolation_control")}
    assert twins == {4: 0.0625, 8: 0.00390625}
    (only,) = carrying(plan)
    assert len(only.configurations) == 3 + 3 + 2


def test_a_twin_that_is_a_candidate_itself_stays_a_candidate() -> None:
    plan = small("space.average={values: [raw, {kind: ema, decay: 0.5}]}")
    assert of_role(plan, "unaveraged_control") == []
    assert len(of_role(plan, "candidate")) == 6


def test_readouts_of_a_trajectory_come_in_step_order() -> None:
    (only,) = carrying(small("space.max_steps={values: [16, 4, 8]}"))
    assert [item.step for item in only.configurations] == [4, 8, 16]


def test_the_accounting_is_what_a_hand_count_gives() -> None:
    counted = plan_of().accounting
    # Space: 3 learning rates x 2 batch sizes x 4 step counts x 5 averages.
    assert counted.configurations == 120
    # Paths: 6 raw, 6 fed back, the 6 twins of these at a tenth of the learning rate, base, default.
    assert counted.trajectories == 6 + 6 + 6 + 2
    # Interpolation twins with decay**steps >= 1e-3: ema(0.95) at 40 and 80, ema(0.99) at all four.
    # Learning-rate twins: 6 paths x 4 step counts. Base and default.
    assert counted.controls == 6 * (2 + 4) + 6 * 4 + 2
    assert counted.readouts == counted.configurations + counted.controls
    assert counted.steps_alone == 6 * 5 * (40 + 80 + 160 + 320)
    assert counted.steps_planned == 19 * 320
    assert counted.ratio == 18000 / 6080
    assert counted.notes == ()


def test_seeds_multiply_trajectories_and_steps_but_not_configurations() -> None:
    one, three = small(), small("seeds=[0, 1, 2]")
    assert three.configurations == one.configurations
    assert three.accounting.trajectories == 3 * one.accounting.trajectories
    assert three.accounting.steps_alone == 3 * one.accounting.steps_alone
    assert three.accounting.steps_planned == 3 * one.accounting.steps_planned
    assert three.accounting.ratio == one.accounting.ratio
    assert len({item.trajectory_id for item in three.trajectories}) == len(three.trajectories)
    assert three.keys() == {(c.config_id, s) for c in one.configurations for s in (0, 1, 2)}


def test_every_configuration_lies_on_exactly_one_trajectory_of_each_seed() -> None:
    plan = plan_of("seeds=[5, 7]", "space.lr_scheduler_type={values: [constant, cosine, wsd]}")
    for seed in (5, 7):
        found = [
            item.config_id
            for trajectory in plan.trajectories
            if trajectory.seed == seed
            for item in trajectory.configurations
        ]
        assert sorted(found) == sorted(item.config_id for item in plan.configurations)
    assert len(plan.keys()) == 2 * len(plan.configurations)


IDS = """
import sys
sys.path.insert(0, sys.argv[1])
from support.factories import make_spec
from sweeper.planning import make_plan
plan = make_plan(make_spec())
print(*[item.config_id for item in plan.configurations])
print(*[item.trajectory_id for item in plan.trajectories])
"""


def test_ids_are_the_same_in_another_process_with_another_hash_seed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IDS, str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "4711"},
    )
    plan = plan_of()
    configurations, trajectories = done.stdout.splitlines()
    assert configurations.split() == [item.config_id for item in plan.configurations]
    assert trajectories.split() == [item.trajectory_id for item in plan.trajectories]


def test_ids_do_not_depend_on_the_order_of_keys_or_values() -> None:
    plan = small("data.train={path: a.jsonl, format: alpaca, where: {a: x, b: y}}")
    turned = small(
        "data.train={where: {b: y, a: x}, format: alpaca, path: a.jsonl}",
        "space.max_steps={values: [16, 4, 8]}",
    )
    assert turned.keys() == plan.keys()
    before, after = carrying(plan)[0], carrying(turned)[0]
    assert before.trajectory_id == after.trajectory_id


@pytest.mark.parametrize(
    "override",
    [
        "data.train.path=b.jsonl",
        "data.max_length=99",
        "data.template=alpaca",
        "model.revision=abc",
        "model.dtype=pure_bf16",
        "data.heldout_rows=7",
    ],
)
def test_ids_change_with_everything_that_defines_a_result(override: str) -> None:
    before, after = small(), small(override)
    assert before.keys().isdisjoint(after.keys())
    ids = {item.trajectory_id for item in before.trajectories}
    assert ids.isdisjoint(item.trajectory_id for item in after.trajectories)


@pytest.mark.parametrize("override", ["compute.cpus_per_trial=2", "name=other"])
def test_ids_do_not_change_with_what_cannot_change_a_result(override: str) -> None:
    assert small(override) == small()


def test_a_huge_grid_is_refused_before_it_is_expanded() -> None:
    axes = [
        f"space.{name}={{low: 1e-9, high: 0.5, num: 1000}}"
        for name in ("learning_rate", "weight_decay", "adam_epsilon")
    ]
    with pytest.raises(SpecError, match=r"the grid has 1000000000 points, at most 100000"):
        plan_of(*axes, ONE_BATCH, RAW, "space.max_steps=4")


def test_a_huge_random_search_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(SpecError, match=r"the random search has 3000000000 points"):
        small("search={method: random, n_trials: 1000000000}")


RANDOM = (
    "space.learning_rate={low: 1e-5, high: 1e-3, log: true}",
    "space.batch_size=8",
    RAW,
    STEPS,
)


def drawn(*search: str) -> list[float]:
    plan = plan_of(*RANDOM, *search)
    return [item.settings.learning_rate for item in carrying(plan)]


def test_random_search_is_seeded() -> None:
    search = ("search.method=random", "search.n_trials=5")
    rates = drawn(*search)
    assert len(set(rates)) == 5
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert drawn(*search) == rates
    assert set(drawn(*search, "search.seed=1")).isdisjoint(rates)


def test_a_longer_random_search_begins_with_the_shorter_one() -> None:
    short = drawn("search.method=random", "search.n_trials=2")
    assert drawn("search.method=random", "search.n_trials=5")[:2] == short


def test_random_search_reads_every_step_count_and_average_of_a_drawn_path() -> None:
    plan = plan_of(*RANDOM, "search={method: random, n_trials: 3}")
    assert [[c.step for c in t.configurations] for t in carrying(plan)] == [[4, 8, 16]] * 3
    assert plan.accounting.configurations == 9


def test_tasks_come_base_model_first_then_longest_first_and_open_what_the_resolver_says() -> None:
    spec = make_spec("space.lr_scheduler_type=linear", ONE_RATE, ONE_BATCH, RAW, STEPS)
    tasks = make_tasks(make_plan(spec), spec, lambda path: f"/cache/{path}", "cpu")
    lengths = [task.segments[0].stop for task in tasks]
    assert lengths == [0, 16, 16, 8, 4]
    assert tasks[0].model.path == "/cache/example/model"
    assert tasks[0].model.name == "example/model"
    assert (tasks[0].data.train.path, tasks[0].data.train.name) == (
        "/cache/train.jsonl",
        "train.jsonl",
    )
    assert tasks[0].compute.device == "cpu"
    assert tasks[0].objectives == ("rouge_l", "unsafe_rate")


def test_the_default_control_is_found_where_the_space_contains_it(tiny_spec_text: str) -> None:
    raw = yaml.safe_load(tiny_spec_text)
    raw["space"] |= {"learning_rate": 2e-4, "batch_size": 8, "lr_scheduler_type": "linear"}
    spec = parse_spec(yaml.safe_dump(raw))
    default = default_control(spec)
    found = {item.config_id: item.role for item in make_plan(spec).configurations}
    assert found[default.config_id] == "candidate"
    assert default.values["max_steps"] == 4


def test_every_averaged_candidate_has_its_raw_twin() -> None:
    averages = (
        "[{kind: ema, decay: 0.9}, {kind: interpolate, weight: 0.5}, {kind: feedback, decay: 0.9}]"
    )
    plan = plan_of(f"space.average={{values: {averages}}}", STEPS)
    by_values = {frozenset((k, str(v)) for k, v in c.values.items()) for c in plan.configurations}
    candidates = of_role(plan, "candidate")
    assert len(candidates) == 3 * 2 * 3 * 3
    for item in candidates:
        raw = {**item.values, "average": "raw"}
        assert frozenset((k, str(v)) for k, v in raw.items()) in by_values
    assert len(of_role(plan, "unaveraged_control")) == 3 * 2 * 3, (
        "one for all averages of a setting"
    )


def test_a_bema_shares_the_path_and_is_read_where_it_was_updated() -> None:
    bema = "space.average={values: [raw, bema, {kind: bema, update_freq: 2, lag: 20}]}"
    plan = plan_of(ONE_RATE, ONE_BATCH, "space.max_steps={values: [20, 40]}", bema)
    assert len(carrying(plan)) == 1
    labels = [item.values["average"] for item in of_role(plan, "candidate")]
    assert labels == ["raw", "bema", "bema(update_freq=2, lag=20)"] * 2
    with pytest.raises(SpecError, match=r"updated every 3 steps, .* max_steps 20"):
        plan_of(
            ONE_RATE, ONE_BATCH, "space.max_steps=20", "space.average={kind: bema, update_freq: 3}"
        )


def test_axes_of_the_data_have_paths_and_packs_of_their_own() -> None:
    pair = "{train: chat, test: {name: chat, system: Be safe.}}"
    spec = make_spec(
        *SMALL,
        "data.safety={path: refusals.jsonl}",
        f"space.template={{values: [chat, {pair}]}}",
        "space.safety_share={values: [0.0, 0.1]}",
    )
    plan = make_plan(spec)
    assert len(carrying(plan)) == 4
    candidates = of_role(plan, "candidate")
    assert len(candidates) == 4 * 3
    assert {item.values["safety_share"] for item in candidates} == {0.0, 0.1}
    assert {item.data.safety_share for item in candidates} == {0.0, 0.1}
    tasks = [task for task in make_tasks(plan, spec, str) if task.segments[-1].stop > 0]
    packs = make_packs(tasks, "auto", 1)
    for pack in packs:
        assert len({repr(task.data) for task in pack}) == 1
    (default,) = of_role(plan, "default")
    assert default.data.safety_share == 0.0


def test_an_adapter_with_dora_is_not_packed_with_one_without() -> None:
    rates = "space.learning_rate={values: [1e-4, 2e-4]}"
    dora = "space.use_dora={values: [false, true]}"
    spec = make_spec(*SMALL, rates, dora, "tuning={method: lora}")
    tasks = [task for task in make_tasks(make_plan(spec), spec, str) if task.segments[-1].stop > 0]
    packs = make_packs(tasks, "auto", 1)
    assert {len(pack) for pack in packs if pack[0].tuning.use_dora} == {2}
    assert all(len({task.tuning.use_dora for task in pack}) == 1 for pack in packs)


def test_a_control_has_the_data_of_its_configuration() -> None:
    spec = make_spec(
        ONE_RATE,
        ONE_BATCH,
        STEPS,
        "data.safety={path: refusals.jsonl}",
        "space.safety_share={values: [0.1, 0.2]}",
        "space.average={kind: ema, decay: 0.9}",
    )
    controls = of_role(make_plan(spec), "unaveraged_control")
    assert {item.values["safety_share"] for item in controls} == {0.1, 0.2}
    assert len(controls) == 2 * 3


def test_a_share_of_safety_rows_needs_their_source() -> None:
    with pytest.raises(SpecError, match=r"space\.safety_share: needs `data\.safety`"):
        make_spec(*SMALL, "space.safety_share={values: [0.0, 0.1]}")


def test_a_plan_of_a_few_configurations_trains_no_more_than_they_need() -> None:
    whole = small()
    first, _, last = of_role(whole, "candidate")
    plan = make_plan(make_spec(*SMALL), only={first.config_id})
    assert [item.config_id for item in plan.configurations] == [first.config_id]
    assert plan.accounting.steps_planned == 4
    assert plan.keys() == {(first.config_id, 0)}
    (base,) = of_role(whole, "base")
    both = make_plan(make_spec(*SMALL), only=[last.config_id, base.config_id])
    assert (both.accounting.steps_planned, both.accounting.readouts) == (16, 2)
    assert make_plan(make_spec(*SMALL), only=[base.config_id]).accounting.ratio == 1.0


def test_a_plan_of_what_is_not_in_the_space_is_refused() -> None:
    with pytest.raises(SpecError, match="configurations beef are not among the"):
        make_plan(make_spec(*SMALL), only={"beef"})
