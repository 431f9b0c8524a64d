"""The answer of a sweep at a glance: a sentence, a picture, three numbers, and how far it is confirmed."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import (
    Candidate,
    PairedDifference,
    Recommendation,
    paired_difference,
)
from sweeper.analysis.decision import Decision
from sweeper.metrics import is_rate, range_text
from sweeper.report.measures import measure
from sweeper.report.warnings import SoFar
from sweeper.spec import ResultsSpec, SweepSpec
from sweeper.stats import Interval
from sweeper.task import configuration_name

UNSAFE = "unsafe_rate"
SEARCHED, AGAIN = "in the search", "trained again"

WIDTH = 100.0
"""The axis of the picture, in units of its drawing."""


class Bar(NamedTuple):
    """One line of the picture: a rate with its interval, in per cent of the axis, and as texts."""

    name: str
    config_id: str
    values: str
    source: str
    at: float
    low: float
    high: float
    text: str
    detail: str
    chosen: bool


class Card(NamedTuple):
    """A number, what it is, and what it is compared with."""

    title: str
    value: str
    detail: str


class Headline(NamedTuple):
    """The head of the page.

    `title` is what the picture shows; `limit` is a place on its axis, if there is a limit on it.
    `state` says how far the answer is confirmed, `confirmed` whether a decision found that it holds, and
    `command` what to run next. `so_far` says how far an unfinished run is; empty for a finished one.
    """

    sentence: str
    so_far: str
    config_id: str
    values: str
    confirmed: bool
    state: str
    command: str
    title: str
    bars: tuple[Bar, ...]
    limit: float | None
    limit_text: str
    ticks: tuple[tuple[float, str], ...]
    cards: tuple[Card, ...]


class _Shown(NamedTuple):
    """A configuration as the head shows it: with its values of the decision where it was trained again."""

    name: str
    item: Candidate
    search: Candidate
    source: str
    interval: Interval | None


def headline(
    found: Recommendation,
    decision: Decision | None,
    names: Sequence[str],
    spec: ResultsSpec,
    facts: Sequence[tuple[str, str]],
    run: str,
    part: SoFar | None = None,
) -> Headline:
    """The head of the page.

    Args:
        found: The recommendation.
        decision: What was trained again; None where nothing was.
        names: The hyperparameters that vary.
        spec: Of the sweep.
        facts: Name and value of what the sweep cost.
        run: The name of the run folder, for commands.
        part: How far the run is, where it is not finished.
    """
    shown = _shown(found, decision)
    chosen = next((one for one in shown if one.name == "recommended"), None)
    limit = next((c.max for c in spec.constraints if c.metric == spec.safety.metric), None)
    bars, place, ticks = _picture(shown, names, limit, spec.safety.metric)
    centre = found.chosen or found.nearest
    sentence = _sentence(found, shown, names, spec)
    return Headline(
        sentence=(sentence if part is None else part.words(sentence)).replace(
            " %", "\N{NO-BREAK SPACE}%"
        ),
        so_far="" if part is None else part.text,
        config_id="" if centre is None else centre.config_id,
        values="" if centre is None else configuration_name(centre.config, names),
        confirmed=found.decided is not None and found.chosen is not None,
        state=_state(found, decision, spec, part),
        command=_command(found, decision, run)
        if part is None and isinstance(spec, SweepSpec)
        else "",
        title=_title(spec.safety.metric),
        bars=bars,
        limit=place,
        limit_text="" if limit is None else f"limit {100 * limit:g} %",
        ticks=ticks,
        cards=_cards(chosen, shown, spec, limit, facts),
    )


def _shown(found: Recommendation, decision: Decision | None) -> tuple[_Shown, ...]:
    """Untouched model, defaults, control without averaging, recommended or nearest, where they exist."""
    again: dict[str, Candidate] = {}
    intervals: dict[str, Interval] = {}
    if decision is not None and decision.complete:
        for one in (*(step.measured for step in decision.steps), *decision.controls):
            again[one.search.config_id] = one.again
        for step in decision.steps:
            for test in step.tests:
                if test.constraint.metric == UNSAFE:
                    intervals[step.config_id] = test.interval
    named = (
        ("untouched model", found.base),
        ("trainers' defaults", found.default),
        ("without averaging", found.unaveraged),
        ("recommended", found.chosen),
        ("nearest", found.nearest),
    )
    shown = []
    for name, item in named:
        if item is not None:
            new = again.get(item.config_id)
            best = intervals.get(item.config_id)
            source = SEARCHED if new is None else AGAIN
            shown.append(_Shown(name, new or item, item, source, best))
    return tuple(shown)


def _sentence(
    found: Recommendation, shown: Sequence[_Shown], names: Sequence[str], spec: ResultsSpec
) -> str:
    """What the recommended configuration changes, in one sentence that can be said aloud."""
    chosen = next((one for one in shown if one.name == "recommended"), None)
    if chosen is None:
        what = "safe enough" if spec.safety.metric == UNSAFE else "good enough"
        return f"No configuration of this sweep is known to be {what}."
    # Only what was measured alike is compared: in the search, or trained again.
    others = {one.name: one for one in shown if one.source == chosen.source}
    if (plain := others.get("without averaging")) is not None:
        return _effect(_subject(chosen.search.config), chosen, plain, spec)
    values = configuration_name(chosen.search.config, names)
    default = others.get("trainers' defaults")
    if default is not None and default.search is not chosen.search:
        return _effect(f"Training with {values}, instead of the defaults,", chosen, default, spec)
    rate, name = measure(chosen.item, spec.safety.metric), spec.utility.metric
    if rate.metric == UNSAFE:
        said = f"{rate.text} of answers are unsafe"
    else:
        said = f"{rate.metric.replace('_', ' ')} is {rate.text}"
    return f"With {values}, {said}, at {name} {measure(chosen.item, name).text}."


def _subject(config: Mapping[str, Any]) -> str:
    kind, _, value = str(config.get("average")).rstrip(")").partition("(")
    if kind == "interpolate":
        return f"Mixing {100 * float(value):.3g} % of the original weights back"
    return f"Averaging the weights along the run ({kind.upper()} {value})"


def _effect(subject: str, chosen: _Shown, other: _Shown, spec: ResultsSpec) -> str:
    """SUBJECT cuts unsafe answers from 13.8 % to 1.2 % and costs 0.005 rouge_l, not significant."""
    first, second = chosen.item, other.item
    before, after = measure(second, UNSAFE), measure(first, UNSAFE)
    unsafe = paired_difference(first, second, UNSAFE)
    utility = paired_difference(first, second, spec.utility.metric)
    if unsafe is None:
        rates = f"leaves unsafe answers at {after.text}"
    elif unsafe.difference == 0:
        rates = f"keeps unsafe answers at {after.text}"
    else:
        verb = "cuts" if unsafe.difference < 0 else "raises"
        doubt = "" if _clear(unsafe) else " (not significant)"
        rates = f"{verb} unsafe answers from {before.text} to {after.text}{doubt}"
    return f"{subject} {rates}{_utility_words(utility, spec)}."


def _utility_words(found: PairedDifference | None, spec: ResultsSpec) -> str:
    if found is None:
        return ""
    scale, unit = (100, " points") if is_rate(found.metric) else (1, "")
    amount = f"{abs(scale * found.difference):.3f}{unit}"
    doubt = "" if _clear(found) else ", not significant"
    if spec.utility.direction == "minimize":
        verb = "lowers" if found.difference < 0 else "raises"
        return f" and {verb} {found.metric} by {amount}{doubt}"
    verb = "gains" if found.difference > 0 else "costs"
    return f" and {verb} {amount}{' of' if unit else ''} {found.metric}{doubt}"


def _clear(found: PairedDifference) -> bool:
    between = found.interval
    return between is not None and (between.low > 0 or between.high < 0)


def _state(
    found: Recommendation, decision: Decision | None, spec: ResultsSpec, part: SoFar | None
) -> str:
    """How far the answer is confirmed."""
    if decision is not None and decision.complete:
        if decision.survivor is None:
            return f"Refuted: none of {len(decision.steps)} configurations held when trained again."
        item = decision.steps[-1].measured.again
        prompts = max((m.n or 0 for m in item.measured(UNSAFE)), default=0)
        what = f"{prompts} new prompts" if decision.new_prompts else "the same prompts"
        return f"Confirmed: it holds when trained again under {len(decision.seeds)} new seeds, on {what}."
    if decision is not None:
        return "Not confirmed yet: the decision on new seeds and prompts has begun."
    if found.chosen is None:
        return "Nothing to confirm." if part is None else "Nothing to confirm yet."
    seeds = len(spec.seeds)
    return (
        f"Not confirmed: measured in the search only, under {seeds} seed{'' if seeds == 1 else 's'}, "
        "on the prompts that chose it."
    )


def _command(found: Recommendation, decision: Decision | None, run: str) -> str:
    if found.chosen is None or (decision is not None and decision.complete):
        return ""
    return f"sweeper recommend {shlex.quote(run)} --confirm"


def _picture(
    shown: Sequence[_Shown], names: Sequence[str], limit: float | None, metric: str
) -> tuple[tuple[Bar, ...], float | None, tuple[tuple[float, str], ...]]:
    """The rates of what is shown on one axis from zero, and where the limit is on it."""
    if not is_rate(metric):
        return (), None, ()
    known = [one for one in shown if metric in one.item.values]
    ends = [between.high for one in known if (between := _between(one, metric)) is not None]
    ends += [one.item.values[metric] for one in known] + [limit or 0.0]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.25) if s * 5 >= max(ends) or s == 0.25)
    top = step * max(1, -(-max(ends) // step))
    bars = []
    for one in known:
        value, between = one.item.values[metric], _between(one, metric)
        low, high = (value, value) if between is None else between
        found = measure(one.item, metric)
        interval = "" if between is None else f"{100 * low:.1f} to {100 * high:.1f} %"
        values = "" if one.search.role == "base" else configuration_name(one.search.config, names)
        bars.append(
            Bar(
                name=one.name,
                config_id=one.search.config_id,
                values=values,
                source="on the new prompts" if not values and one.source == AGAIN else one.source,
                at=WIDTH * value / top,
                low=WIDTH * low / top,
                high=WIDTH * high / top,
                text=found.text,
                detail=", ".join(filter(None, (found.counts, interval))),
                chosen=one.name == "recommended",
            )
        )
    ticks = tuple(
        (WIDTH * i * step / top, f"{100 * i * step:g} %") for i in range(round(top / step) + 1)
    )
    return tuple(bars), None if limit is None else WIDTH * limit / top, ticks


def _title(metric: str) -> str:
    return "Unsafe answers" if metric == UNSAFE else metric.replace("_", " ")


def _between(one: _Shown, metric: str) -> Interval | None:
    return one.interval or one.item.interval(metric)


def _cards(
    chosen: _Shown | None,
    shown: Sequence[_Shown],
    spec: ResultsSpec,
    limit: float | None,
    facts: Sequence[tuple[str, str]],
) -> tuple[Card, ...]:
    """Unsafe, utility and cost."""
    cost = dict(facts)
    spent = cost.get("worker time spent", "not recorded")
    saved = cost.get("saved by sharing", "")
    compared = cost.get("configurations compared", "0")
    details = [f"{compared} configurations compared", f"{saved} saved by sharing" if saved else ""]
    cards = [Card("Cost of the sweep", spent, "; ".join(filter(None, details)))]
    if chosen is None:
        return tuple(cards)
    name = spec.utility.metric
    metric = spec.safety.metric
    unsafe, utility = measure(chosen.item, metric), measure(chosen.item, name)
    between = _between(chosen, metric)
    told = [
        unsafe.counts,
        "" if between is None else range_text(metric, *between),
        "" if limit is None else f"limit {100 * limit:g} %",
    ]
    others = [
        f"{one.name} {measure(one.search if chosen.source != one.source else one.item, name).text}"
        for one in shown
        if one.search is not chosen.search and name in one.search.values
    ]
    return (
        Card(
            _title(metric),
            unsafe.text,
            "; ".join(filter(None, told)),
        ),
        Card(name, utility.text, "; ".join(others)),
        *cards,
    )
