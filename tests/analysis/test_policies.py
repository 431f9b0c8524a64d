"""Which configuration each policy takes, what stands beside it, and what is said where none qualifies."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.factories import base_record, make_record, make_spec, make_sweep, with_samples

from sweeper.analysis import (
    Policy,
    Recommendation,
    find_front,
    multiplicity,
    non_dominated,
    policy_of,
    prompts_needed,
    recommend,
)
from sweeper.analysis.policies import knee_distances
from sweeper.cli.app import _run
from sweeper.errors import SweeperError
from sweeper.spec import dump_spec
from sweeper.stats import discordant_pairs, mcnemar, probability_at_most, wilson_interval
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import TrialRecord

KNEE = Policy("knee")


def choose(records: Sequence[TrialRecord], policy: Policy, *overrides: str) -> Recommendation:
    spec = make_spec(*overrides)
    return recommend(find_front(records, spec), spec, policy)


def points(*pairs: tuple[float, int]) -> list[TrialRecord]:
    """The base model and a configuration for each (utility, unsafe of 256), named by its place."""
    made = [
        make_record(identity=f"p{i}", utility=utility, unsafe=(k, 256))
        for i, (utility, k) in enumerate(pairs)
    ]
    return [base_record(), *made]


def chosen(found: Recommendation) -> str | None:
    return None if found.chosen is None else found.chosen.config_id


@pytest.mark.parametrize(
    ("name", "limit", "utility", "message"),
    [
        ("safest", None, None, "no policy 'safest'; there are safest-useful, knee,"),
        (
            "knee",
            0.1,
            None,
            "--limit belongs to the policy max-utility-at, and the policy here is knee",
        ),
        ("max-utility-at", None, None, "the policy max-utility-at needs --limit X"),
        ("max-utility-at", 1.5, None, "in \\[0, 1\\], but got 1.5"),
        ("min-unsafe-at", None, None, "the policy min-unsafe-at needs --utility X"),
        ("min-unsafe-at", None, math.inf, "finite number, but got inf"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(
    name: str, limit: float | None, utility: float | None, message: str
) -> None:
    with pytest.raises(SweeperError, match=message):
        policy_of(name, limit, utility)


def test_another_limit_makes_others_feasible() -> None:
    records = points((0.95, 60), (0.88, 2), (0.80, 0))
    assert chosen(choose(records, Policy())) == "p1"
    wide = choose(records, policy_of("max-utility-at", limit=0.3))
    assert chosen(wide) == "p0"
    assert "keep unsafe_rate <= 0.3 with probability at least 0.95" in wide.reason
    assert chosen(choose(records, policy_of("max-utility-at", limit=0.02))) == "p2"
    none = choose(records, policy_of("max-utility-at", limit=0.005))
    assert none.chosen is None
    assert "with 256 prompts even a count of 0 would not give 0.95" in none.reason
    assert f"about {prompts_needed(0, 256, 0.005, 0.95):,} prompts would be enough" in none.reason


def test_a_given_limit_keeps_the_other_constraints_and_the_confidence() -> None:
    records = points((0.95, 60), (0.88, 2))
    strict = (
        "constraints=[{metric: unsafe_rate, max: 0.05, confidence: 0.99}, "
        "{metric: over_refusal_rate, max: 0.01}]"
    )
    found = choose(records, policy_of("max-utility-at", limit=0.3), strict)
    assert found.chosen is None
    assert "over_refusal_rate 2.3 % (3/128" in found.reason and "(60/" not in found.reason
    loose = "constraints=[{metric: unsafe_rate, max: 0.05, confidence: 0.999999}]"
    assert (
        "at least 0.999999" in choose(records, policy_of("max-utility-at", limit=0.5), loose).reason
    )


def test_the_knee_is_where_the_front_bends_most() -> None:
    found = choose(points((0.90, 5), (0.89, 1), (0.60, 0), (0.70, 4)), KNEE)
    assert chosen(found) == "p1"
    # Between the ends (0.90, 5) and (0.60, 0): utility loss 1/30 of the way, unsafe 1/5 of the way.
    distance = (1 - 1 / 30 - 1 / 5) / math.sqrt(2)
    assert f"farthest beyond the line between the ends, {distance:.3f}" in found.reason
    assert "of the 3 on the front" in found.reason
    assert [item.config_id for item in found.ranked] == ["p1", "p0", "p2"]


def test_the_knee_is_the_farthest_point_by_brute_force_whatever_the_units() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        # More useful is less safe, so that fronts are long.
        useful = rng.random(30)
        unsafe = (200 * useful**2 + rng.integers(0, 50, 30)).astype(int)
        pairs = list(zip(useful.tolist(), unsafe.tolist(), strict=True))
        spec = make_spec("constraints=[]")
        items = find_front(points(*pairs), spec).competing
        xy = np.array([[-item.values["rouge_l"], item.values["unsafe_rate"]] for item in items])
        kept = xy[non_dominated(xy)]
        first, last = kept[kept[:, 0].argmin()], kept[kept[:, 1].argmin()]
        found = knee_distances(items, spec)
        assert len(found) == len(kept) > 2
        a, b = (end / np.array([np.ptp(kept[:, 0]), np.ptp(kept[:, 1])]) for end in (first, last))
        for item, point in zip(items, xy, strict=True):
            if item.config_id in found:
                p = point / np.array([np.ptp(kept[:, 0]), np.ptp(kept[:, 1])])
                cross = (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
                assert found[item.config_id] == pytest.approx(-cross / math.hypot(*(b - a)))


@pytest.mark.parametrize(
    "pairs", [[(0.9, 5)], [(0.9, 5), (0.8, 1)], [(0.9, 5), (0.89, 4), (0.5, 0)][::2]]
)
def test_a_front_without_a_knee_gives_its_most_useful_end_and_says_so(
    pairs: list[tuple[float, int]],
) -> None:
    found = choose(points(*pairs), KNEE)
    assert chosen(found) == "p0"
    assert "so it has no knee" in found.reason


def test_a_front_that_bends_the_other_way_has_no_knee() -> None:
    found = choose(points((0.90, 5), (0.62, 4), (0.60, 0)), KNEE)
    assert chosen(found) == "p0"
    assert "none of the 3 on it lies beyond the line" in found.reason


def test_the_knee_ignores_what_is_not_feasible_or_has_no_gain() -> None:
    records = points((0.95, 60), (0.90, 5), (0.89, 1), (0.60, 0), (0.31, 0))
    assert chosen(choose(records, KNEE)) == "p2"
    assert chosen(choose(records[1:], KNEE)) is None


def test_least_unsafe_is_among_those_whose_utility_is_sure() -> None:
    records = points((0.95, 60), (0.90, 9), (0.83, 1), (0.60, 0))
    bound = wilson_interval(0.90 * 96, 96, 0.9).low
    found = choose(records, policy_of("min-unsafe-at", utility=0.82))
    assert chosen(found) == "p1"
    assert "rouge_l at least 0.82 with 95 % confidence" in found.reason
    assert f"its rouge_l is 0.9, at least {bound:.4g}" in found.reason
    assert "violates the constraints of the sweep (unsafe_rate 3.5 % (9/256" in found.reason
    assert chosen(choose(records, policy_of("min-unsafe-at", utility=0.4))) == "p3"


def test_rows_decide_whether_a_utility_is_reached() -> None:
    steady, wild = (0.9,) * 47 + (0.88,), (1.0, 0.8) * 24
    records = [
        base_record(),
        with_samples({"rouge_l": steady}, identity="steady", unsafe=(3, 256)),
        with_samples({"rouge_l": wild}, identity="wild", unsafe=(0, 256)),
    ]
    assert chosen(choose(records, policy_of("min-unsafe-at", utility=0.89))) == "steady"
    assert chosen(choose(records, policy_of("min-unsafe-at", utility=0.85))) == "wild"


def test_a_loss_is_to_be_at_most_what_is_asked() -> None:
    records = points((0.95, 60), (0.90, 9), (0.83, 1))
    words = "objectives=[heldout_loss, unsafe_rate]"
    found = choose(records, policy_of("min-unsafe-at", utility=1.12), words)
    assert chosen(found) == "p1"
    assert "heldout_loss at most 1.12" in found.reason
    none = choose(records, policy_of("min-unsafe-at", utility=0.9), words)
    assert none.chosen is None and none.nearest is not None
    assert none.nearest.config_id == "p0"
    assert "more rows would not help at this value" in none.reason


def test_where_no_utility_is_sure_the_rows_that_would_do_are_said() -> None:
    rng = np.random.default_rng(1)
    rows = tuple(np.clip(rng.normal(0.8, 0.1, 40), 0, 1).tolist())
    records = [base_record(), with_samples({"rouge_l": rows}, identity="a")]
    wanted = float(np.mean(rows)) - 0.01
    found = choose(records, policy_of("min-unsafe-at", utility=wanted))
    assert found.chosen is None
    said = re.search(r"about (\d+) rows would do", found.reason)
    assert said is not None
    # Student's t at 39 degrees of freedom has 1.685 at 0.95, one-sided.
    half = 1.685 * np.std(rows, ddof=1) / math.sqrt(int(said.group(1)))
    assert half == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize(("rate", "n"), [(0.0, 50), (9 / 240, 240), (0.03, 100), (0.049, 1000)])
def test_the_prompts_needed_pass_and_a_tenth_fewer_do_not(rate: float, n: int) -> None:
    found = prompts_needed(rate, n, 0.05, 0.95)
    assert found is not None

    def sure(prompts: int) -> float:
        return probability_at_most(math.ceil(rate * prompts), prompts, 0.05)

    assert sure(found) >= 0.95
    assert sure(int(0.9 * found)) < 0.95


def test_no_number_of_prompts_helps_a_rate_that_is_not_below_the_limit() -> None:
    assert prompts_needed(0.05, 100, 0.05, 0.95) is None
    assert prompts_needed(0.05 - 1e-6, 100, 0.05, 0.95) is None
    found = choose(points((0.9, 20)), Policy())
    assert "where at most 6/256 would give 0.95; more prompts would not help" in found.reason


def test_the_need_names_the_count_that_would_pass_and_the_prompts() -> None:
    found = choose(points((0.9, 10)), Policy())
    needed = prompts_needed(10 / 256, 256, 0.05, 0.95)
    assert (
        f"where at most 6/256 would give 0.95; at its rate, about {needed:,} prompts would be enough"
        in found.reason
    )


def test_the_choice_is_tested_against_its_controls_on_the_same_prompts() -> None:
    rng = np.random.default_rng(2)

    def answered(share: float) -> str:
        return "".join("1" if u < share else "0" for u in rng.random(200))

    texts = {
        "raw": answered(0.2),
        "ema": answered(0.005),
        "default": answered(0.02),
        "base": "0" * 200,
    }
    level = {"raw": 0.9, "ema": 0.9, "default": 0.6, "base": 0.2}
    rows = {name: tuple((level[name] + 0.05 * rng.random(50)).tolist()) for name in texts}
    shape: dict[str, dict[str, Any]] = {
        "raw": {"average": "raw"},
        "ema": {"average": "ema(0.95)"},
        "default": {"role": "default", "learning_rate": 2e-5},
        "base": {"role": "base", "max_steps": 0},
    }
    records = [
        with_samples({"unsafe_rate": texts[n], "rouge_l": rows[n]}, identity=n, **shape[n])
        for n in texts
    ]
    found = choose(records, Policy())
    assert chosen(found) == "ema"
    assert [(c.name, c.other.config_id) for c in found.contrasts] == [
        ("without averaging", "raw"),
        ("trainers' defaults", "default"),
        ("untouched model", "base"),
    ]
    for contrast in found.contrasts:
        pairs = discordant_pairs(texts["ema"], texts[contrast.other.config_id])
        assert contrast.unsafe is not None and contrast.utility is not None
        assert contrast.unsafe.p_value == mcnemar(pairs)
        assert contrast.utility.paired and contrast.utility.n == 50
    assert found.contrasts[0].unsafe is not None and found.contrasts[0].unsafe.p_value is not None
    assert found.contrasts[0].unsafe.p_value < 0.001
    assert multiplicity(found).startswith("3 configurations were compared on the same prompts")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with synthetic records."""
    spec, folder = make_spec(), RunFolder(tmp_path)
    records = make_sweep(spec, seed=3)
    folder.records.write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    folder.plan.write_text(json.dumps({"version": 1, "accounting": {}}), "utf-8")
    folder.info.write_text(json.dumps({"version": RUN_VERSION}), encoding="utf-8")
    return tmp_path


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str | Path
) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["sweeper", "recommend", *map(str, words)])
    code = _run()
    return code, *capsys.readouterr()


def test_data_and_text_of_a_recommendation_say_the_same(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--policy", "max-utility-at", "--limit", "0.2")
    code, out, _ = told(capsys, monkeypatch, run, *words, "--json")
    assert code == 0
    data = json.loads(out)
    found = choose(make_sweep(make_spec(), seed=3), policy_of("max-utility-at", limit=0.2))
    assert found.chosen is not None
    assert data["policy"] == {"name": "max-utility-at", "limit": 0.2, "utility": None}
    assert data["chosen"]["config_id"] == found.chosen.config_id
    assert data["chosen"]["metrics"] == dict(found.chosen.values)
    assert data["compared"] == found.compared
    assert data["qualified"] == [item.config_id for item in found.ranked]
    assert [control["name"] for control in data["controls"]] == [c.name for c in found.contrasts]
    for control in data["controls"]:
        unsafe = control["unsafe_rate"]
        assert unsafe["paired"] is False and unsafe["p_value"] is None
    code, out, _ = told(capsys, monkeypatch, run, *words)
    assert code == 0
    assert data["reason"] in out and data["multiplicity"] in out
    assert "unpaired" in out


def test_nothing_qualifies_and_there_is_nothing_to_decide(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--policy", "min-unsafe-at", "--utility", "0.999")
    code, out, _ = told(capsys, monkeypatch, run, *words)
    assert code == 0
    assert "the nearest is" in out and "but 0.999 is required" in out
    code, _, err = told(capsys, monkeypatch, run, *words, "--confirm")
    assert code == 2
    assert "nothing to decide" in err
    assert not (run / "confirm").exists()


def test_wrong_words_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = told(capsys, monkeypatch, run, "--policy", "knee", "--utility", "0.5")
    assert (code, out) == (2, "")
    assert "--utility belongs to the policy min-unsafe-at" in err
    code, _, err = told(capsys, monkeypatch, run, "--judge", "zou2023", "--confirm")
    assert code == 2 and "open the run without a judge" in err
    code, _, err = told(capsys, monkeypatch, run, "--confirm", "--seeds", "1")
    assert code == 2 and "--seeds" in err
