"""The decision of a sweep as a table: what was trained again, and what holds."""

from collections.abc import Sequence
from typing import NamedTuple

from sweeper.analysis.decision import Again, AgainTest, Decision, Step, share, weights_text
from sweeper.report.measures import ABSENT, measure
from sweeper.spec import ResultsSpec
from sweeper.task import configuration_name


class DecisionRow(NamedTuple):
    """One configuration that was trained again, or a control beside it; `why` is empty for a control."""

    name: str
    config_id: str
    values: str
    search: str
    again: str
    tests: tuple[str, ...]
    utility: str
    outcome: str
    why: tuple[str, ...]


class DecisionTable(NamedTuple):
    """The outcome in a sentence, one row per configuration, and notes."""

    outcome: str
    metric: str
    rows: tuple[DecisionRow, ...]
    notes: tuple[str, ...]


def decision_table(
    found: Decision | None, names: Sequence[str], spec: ResultsSpec
) -> DecisionTable | None:
    """The table of a decision; None where none has begun.

    Args:
        found: The decision.
        names: The hyperparameters that vary.
        spec: Of the sweep.
    """
    if found is None:
        return None
    rows = [_step(step, names, spec) for step in found.steps]
    rows += [_row(item, names, spec) for item in found.controls]
    spent = (
        f"The probability that the whole walk ends with a configuration that breaks a limit is at most "
        f"{found.error:.3g}: the k-th test may use {found.error:.3g} / (k (k + 1)) of it."
        if found.new_prompts
        else f"Each test may use {found.error:.3g} / {found.compared} of the error level."
    )
    notes = (spent, *(f"{note[0].upper()}{note[1:]}." for note in found.notes))
    return DecisionTable(_sentence(found.sentence), spec.utility.metric, tuple(rows), notes)


def decided_answer(found: Decision, names: Sequence[str], spec: ResultsSpec) -> str:
    """The answer of a finished decision, from what did not choose it."""
    if found.survivor is None:
        return f"Nothing can be recommended: none of {len(found.steps)} tested holds when trained again."
    step, name = found.steps[-1], spec.utility.metric
    rates = " and ".join(
        f"{_words(test)} {100 * test.rate:.1f} % ({_interval(test)})" for test in step.tests
    )
    words = configuration_name(found.survivor.config, names) or "The only configuration"
    return (
        f"{words}: trained again under "
        f"{len(found.seeds)} new seeds, {name} {measure(step.measured.again, name).text} and {rates} on "
        f"{'prompts that did not choose it' if found.new_prompts else 'the prompts of the search'}."
    )


def _words(test: AgainTest) -> str:
    return test.constraint.metric.replace("_", " ")


def _interval(test: AgainTest) -> str:
    low, high = (100 * end for end in test.interval)
    return f"{100 * test.confidence:.3g} % interval {low:.1f} to {high:.1f} %"


def _sentence(text: str) -> str:
    return f"Outcome: {text}."


def _step(step: Step, names: Sequence[str], spec: ResultsSpec) -> DecisionRow:
    tests = tuple(
        f"P({test.constraint.metric} \u2264 {test.constraint.max:g}, trained again) = "
        f"{share(test.probability)}, {share(1 - test.level)} demanded"
        for test in step.tests
    )
    outcome = "holds" if step.holds else "does not hold"
    why = (step.verdict, *map(weights_text, step.weights))
    return _row(step.measured, names, spec)._replace(tests=tests, outcome=outcome, why=why)


def _row(item: Again, names: Sequence[str], spec: ResultsSpec) -> DecisionRow:
    gap = item.utility
    moved = "" if gap is None else f" ({gap.difference:+.3f} from the search)"
    return DecisionRow(
        name=item.name,
        config_id=item.search.config_id,
        values=configuration_name(item.search.config, names),
        search=_rate(item, again=False),
        again=_rate(item, again=True),
        tests=(),
        utility=f"{measure(item.again, spec.utility.metric).text}{moved}",
        outcome="",
        why=(),
    )


def _rate(item: Again, *, again: bool) -> str:
    found = measure(item.again if again else item.search, "unsafe_rate")
    return found.text if found.text == ABSENT else f"{found.text} ({found.counts})"
