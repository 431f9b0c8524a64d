"""P(on front) against closed forms, integration and brute force; what is said about it."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import find_front, front_certainty, losses, non_dominated
from sweeper.analysis.draws import metric_draws, suite_of, weights_of
from sweeper.analysis.membership import fronts
from sweeper.cli import main
from sweeper.spec import SweepSpec, dump_spec, spec_hash
from sweeper.stats import hypervolume, probability_at_most
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import TrialRecord
from sweeper.store.samples import Samples

BY_LOSS = ("objectives=[heldout_loss, unsafe_rate]", "constraints=[]")


def p_front(records: list[TrialRecord], spec: SweepSpec) -> Mapping[str, float]:
    found = front_certainty(find_front(records, spec), spec)
    return {name: membership.p_front for name, membership in found.memberships.items()}


def bits(n: int, *counted: range) -> str:
    return "".join("1" if any(i in part for part in counted) else "0" for i in range(n))


def test_of_two_the_less_useful_is_on_the_front_where_it_is_safer() -> None:
    records = [
        make_record(identity="useful", unsafe=(9, 100), utility=0.9),
        make_record(identity="safe", unsafe=(4, 100), utility=0.8),
    ]
    found = p_front(records, make_spec(*BY_LOSS))
    x = (np.arange(20_000) + 0.5) / 20_000
    useful, safe = stats.beta(9.5, 91.5), stats.beta(4.5, 96.5)
    safer = float(np.mean(useful.pdf(x) * safe.cdf(x)))
    assert found["useful"] == 1.0
    assert found["safe"] == pytest.approx(safer, abs=0.02)


def test_a_single_one_is_on_the_front_where_it_keeps_the_constraint() -> None:
    spec = make_spec("objectives=[heldout_loss, unsafe_rate]")
    for k in (2, 9, 14, 40):
        records = [make_record(identity="one", unsafe=(k, 256))]
        expected = probability_at_most(k, 256, 0.05)
        drawn = stats.beta(k + 0.5, 256 - k + 0.5).cdf(0.05)
        assert p_front(records, spec)["one"] == pytest.approx(drawn, abs=0.02)
        membership = front_certainty(find_front(records, spec), spec).memberships["one"]
        assert membership.p_feasible == expected
        assert membership.on_front == (expected >= 0.95)


def test_the_same_prompts_tell_apart_what_counts_cannot() -> None:
    def pair(paired: bool) -> float:
        sets = {"useful": bits(256, range(40)), "safe": bits(256, range(28))}
        records = [
            with_samples(
                {"unsafe_rate": verdicts} if paired else {},
                identity=name,
                unsafe=(verdicts.count("1"), 256),
                utility=0.9 if name == "useful" else 0.8,
            )
            for name, verdicts in sets.items()
        ]
        return p_front(records, make_spec(*BY_LOSS))["safe"]

    assert pair(paired=True) > 0.99
    assert 0.85 < pair(paired=False) < 0.97


def test_losses_row_by_row_are_paired_and_values_alone_are_exact() -> None:
    rng = np.random.default_rng(0)
    tokens = tuple((10 + rng.integers(0, 9, 96)).tolist())
    hard = rng.uniform(0.5, 3, 96)
    spec = make_spec("objectives=[perplexity, unsafe_rate]", *EXTRA, "constraints=[]")
    records = []
    for name, better in (("a", 0.02), ("b", 0.0)):
        loss = (hard - better + rng.normal(0, 0.05, 96)) * np.array(tokens)
        samples: Samples = {"heldout/loss": tuple(loss.tolist()), "heldout/tokens": tokens}
        records.append(with_samples(samples, identity=name, unsafe=(9, 100)))
    items = find_front(records, spec).competing
    found = metric_draws("perplexity", items)
    rng = np.random.default_rng(1)
    drawn = found.draw(weights_of({"perplexity": found}, 4000, rng)[found.suite], rng)
    assert found.paired.all() and not found.exact.any()
    for index, item in enumerate(items):
        assert np.median(drawn[:, index]) == pytest.approx(item.values["perplexity"], rel=0.01)
    gap = np.log(drawn[:, 1] / drawn[:, 0])
    assert gap.std() < 0.15 * np.log(drawn[:, 0]).std()
    plain = [make_record(identity=name, utility=0.5) for name in "ab"]
    alone = metric_draws("heldout_loss", find_front(plain, make_spec(*BY_LOSS)).competing)
    assert alone.exact.all() and (alone.draw(np.ones((3, 1)), rng) == 1.5).all()


EXTRA = ("evaluation.utility_metrics=[rouge_l, heldout_loss, perplexity]",)


@pytest.mark.parametrize("paired", [False, True])
def test_seeds_that_differ_make_a_place_unsure(paired: bool) -> None:
    spec = make_spec(*BY_LOSS, "seeds=[0, 1, 2]")

    def found(*counts: int) -> float:
        records = [
            with_samples(
                {"unsafe_rate": bits(256, range(k))} if paired else {},
                identity=name,
                unsafe=(k, 256),
                utility=0.9 if name == "useful" else 0.8,
                seed=seed,
            )
            for name, each in (("useful", (40, 40, 40)), ("safe", counts))
            for seed, k in enumerate(each)
        ]
        return p_front(records, spec)["safe"]

    # A prior on the difference of runs, worth four seeds of one configuration, keeps some doubt.
    assert 0.97 < found(5, 5, 5) < 0.999
    assert found(5, 5, 5) > found(1, 1, 40) > found(5, 20, 60)
    assert 0.6 < found(5, 20, 60) < 0.85


def test_with_several_seeds_anywhere_the_probability_is_about_training_again() -> None:
    spec = make_spec(*BY_LOSS)
    alone = [
        make_record(identity="useful", unsafe=(30, 256), utility=0.9),
        make_record(identity="safe", unsafe=(10, 256), utility=0.8),
    ]
    other = [
        make_record(identity="other", unsafe=(k, 256), utility=0.7, seed=s)
        for s, k in enumerate((40, 44, 36, 40))
    ]
    weights = front_certainty(find_front(alone, spec), spec)
    again = front_certainty(find_front([*alone, *other], spec), spec)
    assert {m.claim for m in weights.memberships.values()} == {weights.claim} == {"these weights"}
    assert {m.claim for m in again.memberships.values()} == {again.claim} == {"trained again"}
    # What one run shows about its weights says less about the next run.
    assert weights.memberships["safe"].p_front > 0.99 > again.memberships["safe"].p_front > 0.7
    assert again.notes[0] == (
        "2 of 3 configurations have one seed: how their training runs differ is taken from those with "
        "several"
    )


def test_many_seeds_of_others_tell_how_much_runs_differ() -> None:
    spec = make_spec(*BY_LOSS)

    def found(*counts: int) -> float:
        records = [
            make_record(identity="useful", unsafe=(30, 256), utility=0.9),
            make_record(identity="safe", unsafe=(10, 256), utility=0.8),
        ]
        records += [
            replace(
                make_record(identity=f"other{i}", unsafe=(k, 256), utility=0.5, seed=s),
                trajectory_id=f"path{i}",
            )
            for i in range(8)
            for s, k in enumerate(counts)
        ]
        return p_front(records, spec)["safe"]

    assert found(40, 40, 40, 40) > 0.9 > 0.8 > found(10, 40, 80, 120)


def test_off_needs_one_other_that_is_clearly_better() -> None:
    # Thirty alike: some other one dominates in most draws, none in particular.
    alike = [make_record(identity=f"like{i}", unsafe=(12, 256), utility=0.8) for i in range(30)]
    spec = make_spec("constraints=[]")
    found = front_certainty(find_front(alike, spec), spec)
    assert found.count("uncertain") == 30
    assert all(m.p_front < 0.15 and m.p_front_upper > 0.5 for m in found.memberships.values())
    worse = make_record(identity="worse", unsafe=(60, 256), utility=0.3)
    ruled = front_certainty(find_front([*alike, worse], spec), spec).memberships["worse"]
    assert (ruled.label, ruled.p_front_upper) == ("off", 0.0)


@pytest.mark.parametrize("columns", [2, 3])
def test_fronts_of_many_draws_are_those_of_each(columns: int) -> None:
    rng = np.random.default_rng(columns)
    points = rng.normal(size=(40, 80, columns))
    points[10:] = np.round(points[10:])
    feasible = rng.random((40, 80)) < 0.8
    feasible[5] = False
    for column in (0, 1):
        found = fronts(points, feasible, column)
        for mask, one, allowed in zip(found, points, feasible, strict=True):
            expected = np.zeros(80, dtype=bool)
            expected[allowed] = non_dominated(one[allowed])
            assert mask.tolist() == expected.tolist()


@pytest.mark.parametrize("m", [1023, 1025])
def test_fronts_of_three_objectives_are_those_of_each_draw_for_few_and_for_many(m: int) -> None:
    rng = np.random.default_rng(m)
    points = rng.normal(size=(m, 3)) + 0.2 * rng.normal(size=(24, m, 3))
    points[:, 1] = points[:, 0]
    points[:4] = np.round(points[:4], 1)
    feasible = rng.random((24, m)) < 0.7
    feasible[7], feasible[8, 1:] = False, False
    for mask, one, allowed in zip(fronts(points, feasible), points, feasible, strict=True):
        expected = np.zeros(m, dtype=bool)
        expected[allowed] = non_dominated(one[allowed])
        assert mask.tolist() == expected.tolist()


def test_classes_follow_from_the_probabilities_of_a_whole_sweep() -> None:
    spec = make_spec()
    records = make_sweep(spec)
    front = find_front(records, spec)
    found = front_certainty(front, spec)
    assert set(found.memberships) == {item.config_id for item in front.competing}
    assert found.draws == 4000
    for membership in found.memberships.values():
        low, high = membership.p_front, membership.p_front_upper
        assert low <= high
        assert membership.label == ("on" if low >= 0.95 else "off" if high < 0.01 else "uncertain")
    members = {item.config_id for item in front.members}
    assert {n for n, s in found.memberships.items() if s.on_front} == members
    assert sum(found.count(v) for v in ("on", "uncertain", "off")) == len(found.memberships)
    # The expected size of a front is at least one wherever something is feasible.
    assert sum(s.p_front for s in found.memberships.values()) > 1
    assert front_certainty(find_front(records[::-1], spec), spec) == found


def test_the_volume_is_that_of_the_members_and_its_interval_holds_it() -> None:
    spec = make_spec()
    front = find_front(make_sweep(spec), spec)
    volume = front_certainty(front, spec).hypervolume
    assert volume is not None
    assert volume.reference == {"rouge_l": 0.0, "unsafe_rate": 0.05}
    points = losses(front.members, spec.objectives)
    assert volume.value == hypervolume(points, [0.0, 0.05])
    assert 0 < volume.interval.low < volume.value < volume.interval.high < 0.05


def test_an_unbounded_metric_is_measured_from_the_untouched_model() -> None:
    spec = make_spec("objectives=[heldout_loss, unsafe_rate]", "constraints=[]")
    front = find_front([base_record(utility=0.31), make_record(unsafe=(0, 256))], spec)
    volume = front_certainty(front, spec).hypervolume
    assert volume is not None
    assert volume.reference == {"heldout_loss": 2.0 - 0.31, "unsafe_rate": 1.0}
    assert volume.value == pytest.approx(0.54)


def test_what_is_missing_is_said() -> None:
    spec = make_spec(*BY_LOSS)
    rates = {"unsafe_rate": bits(256, range(3))}
    records = [with_samples(rates, unsafe=(3, 256)), make_record(max_steps=40)]
    notes = front_certainty(find_front(records, spec), spec).notes
    assert notes == (
        "one seed: P(on front) is about these weights; for their configurations, trained again, there is "
        "no number, since nothing is known about how training runs differ",
        "2 of 2 configurations have no rows of heldout_loss: taken as exact",
        "1 of 2 configurations have k/n of unsafe_rate without its prompts: taken as independent of "
        "the others",
    )
    assert front_certainty(find_front([], spec), spec).memberships == {}
    failed = front_certainty(find_front([make_record(status="failed")], spec), spec)
    assert (failed.memberships, failed.hypervolume) == ({}, None)


def test_a_constraint_on_what_was_not_measured_is_never_kept() -> None:
    spec = make_spec("constraints=[{metric: over_refusal_rate, max: 0.1}]")
    plain = make_record(identity="one")
    metrics = {k: m for k, m in plain.metrics.items() if k != "over_refusal_rate"}
    front = find_front([replace(plain, metrics=metrics)], spec)
    membership = front_certainty(front, spec).memberships["one"]
    assert membership == (0.0, 0.0, 0.0, "off", False, "these weights")


@pytest.mark.parametrize(
    ("metric", "suite"),
    [
        ("unsafe_rate/zou2023", "harmful"),
        ("over_refusal_rate", "harmless"),
        ("degenerate_rate/harmless", "harmless"),
        ("perplexity", "heldout"),
        ("lm_eval/gsm8k/exact_match/strict", "lm_eval/gsm8k"),
    ],
)
def test_metrics_of_one_suite_share_its_prompts(metric: str, suite: str) -> None:
    assert suite_of(metric) == suite


def test_the_front_command_prints_it_all_as_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = make_spec()
    records = make_sweep(spec)
    folder = RunFolder(tmp_path)
    folder.records.write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    info = {"version": RUN_VERSION, "name": spec.name, "spec_hash": spec_hash(spec)}
    folder.info.write_text(json.dumps(info), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["sweeper", "front", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    expected = front_certainty(find_front(records, spec), spec)
    assert [m["config_id"] for m in found["members"]] == [
        item.config_id for item in find_front(records, spec).members
    ]
    for item in (*found["members"], *found["others"]):
        membership = expected.memberships[item["config_id"]]
        assert (item["p_front"], item["p_feasible"]) == (membership.p_front, membership.p_feasible)
        assert (item["p_front_upper"], item["claim"]) == (membership.p_front_upper, "these weights")
        assert (item["front_membership"], item["on_front"]) == (
            membership.label,
            membership.on_front,
        )
    others = {item["config_id"] for item in found["others"]}
    uncertain = {n for n, s in expected.memberships.items() if s.label != "off" and not s.on_front}
    assert others == uncertain
    assert found["membership_counts"] == {v: expected.count(v) for v in ("on", "uncertain", "off")}
    assert expected.hypervolume is not None
    assert found["hypervolume"]["interval"] == list(expected.hypervolume.interval)
    assert (found["draws"], found["claim"]) == (4000, "these weights")
