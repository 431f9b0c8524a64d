"""What a decision is said to cost, against what its rounds are made of."""

import pytest
from support.decisions import halved

from sweeper.estimate.decision_cost import dearest_first, decision_cost
from sweeper.estimate.inputs import plan_estimate
from sweeper.planning import make_plan
from sweeper.spec import SweepSpec


def cost(text: str, *overrides: str) -> tuple[SweepSpec, tuple[int, int, int, int]]:
    spec = halved(text, *overrides)
    found = decision_cost(make_plan(spec), spec, None)
    assert found is not None and found.first.seconds is None
    first, longest = found
    return spec, (first.steps, first.readouts, longest.steps, longest.readouts)


def test_the_first_walk_is_one_path_under_new_and_old_seeds(tiny_spec_text: str) -> None:
    """Three paths of four steps; the control of the trainers' defaults is none of the candidates."""
    assert cost(tiny_spec_text)[1] == ((5 + 1) * 4, 12, (3 * 5 + 1) * 4, 32)
    assert cost(tiny_spec_text, "seeds=[0, 1]")[1][:2] == ((5 + 2) * 4, 14)
    assert cost(tiny_spec_text, "decide={seeds: 3, candidates: 2}")[1] == (
        16,
        8,
        (2 * 3 + 1) * 4,
        14,
    )


def test_paths_of_other_lengths_are_averaged_and_the_longest_counted(tiny_spec_text: str) -> None:
    overrides = ("space.lr_scheduler_type=linear", "decide.candidates=1")
    assert cost(tiny_spec_text, *overrides)[1] == (6 * 3, 12, 6 * 4, 12)


@pytest.mark.parametrize("candidates", [1, 2, 9])
@pytest.mark.parametrize("seeds", ["[0]", "[0, 1, 2, 3, 4, 5, 6]"])
def test_no_decision_costs_more_than_the_longest(
    tiny_spec_text: str, candidates: int, seeds: str
) -> None:
    decide = f"decide={{seeds: 3, candidates: {candidates}}}"
    _, (first, _, longest, _) = cost(tiny_spec_text, decide, f"seeds={seeds}")
    assert first <= longest


def test_the_dearest_first_walk_is_on_the_longest_path(tiny_spec_text: str) -> None:
    spec = halved(tiny_spec_text, "space.lr_scheduler_type=linear", "decide.candidates=1")
    plan = make_plan(spec)
    found = plan_estimate(plan, spec, workers=1)
    dearest, usual = dearest_first(plan, spec, found), decision_cost(plan, spec, found)
    assert dearest is not None and usual is not None
    assert (dearest.steps, usual.first.steps) == (6 * 4, 6 * 3)
    assert (dearest.seconds or 0) > (usual.first.seconds or 0) > 0
    spec = spec.model_copy(update={"decide": False})
    assert dearest_first(plan, spec, found) is None


@pytest.mark.parametrize("override", ["decide=false", "constraints=[]"])
def test_without_a_decision_there_is_no_cost(tiny_spec_text: str, override: str) -> None:
    spec = halved(tiny_spec_text, override)
    assert decision_cost(make_plan(spec), spec, None) is None


def test_more_prompts_than_in_the_search_take_longer(tiny_spec_text: str) -> None:
    def seconds(rows: str) -> float:
        spec = halved(tiny_spec_text, "evaluation.harmful.rows=2", rows)
        plan = make_plan(spec)
        found = plan_estimate(plan, spec, workers=1)
        decision = decision_cost(plan, spec, found)
        assert decision is not None and decision.longest.seconds is not None
        each = found.rates.generate_token_seconds * found.tokens.generated / found.tokens.prompts
        return decision.longest.seconds / (each * decision.longest.readouts)

    assert seconds("decide.rows=2") == pytest.approx(seconds("decide.seeds=5"))
    assert seconds("decide.rows=22") == pytest.approx(seconds("decide.seeds=5") + 20)
