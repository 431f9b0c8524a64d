"""Confirms a recommendation: remeasures a few configurations on new prompts and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sweeper.analysis import (
    BASE_ROLE,
    Candidate,
    Front,
    PairedDifference,
    Recommendation,
    find_front,
    paired_difference,
    unaveraged_control,
    unmet,
)
from sweeper.errors import SweeperError
from sweeper.planning import short_hash
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.records import TrialRecord
from sweeper.task import PromptSuite

OTHER_HALF = {"search": "confirm", "confirm": "search", "all": "all"}
"""The half of a suite that a run left out; none where it used both."""

UNSAFE = "unsafe_rate"

HOLDS, FAILS = "keeps every constraint and has a gain", "does not hold"


class Confirmation(NamedTuple):
    """How a sweep is to be run again on what it left out.

    `new_prompts` says whether there are harmful prompts that the sweep did not use; where there are none,
    only the seeds are new. `notes` are sentences for the reader.
    """

    spec: SweepSpec
    names: Mapping[str, str]
    folder: RunFolder
    new_prompts: bool
    notes: tuple[str, ...]


class Shrinkage(NamedTuple):
    """One configuration in the search and again: gaps are confirmed - search.

    `unsafe` compares independent prompts, or the same prompts under new seeds. `utility` compares the same
    held-out rows under new seeds, and is None where there are none. `verdict` is the outcome.
    """

    name: str
    config_id: str
    search: Candidate
    again: Candidate | None
    unsafe: PairedDifference | None
    utility: PairedDifference | None
    verdict: str


def confirmation(
    run: RunFolder, spec: SweepSpec, front: Front, found: Recommendation, seeds: int, top: int
) -> Confirmation:
    """Lay out how the best `top` of a recommendation and their controls are measured again.

    Suites of which the sweep used one half get the other one. Where harmful prompts are new, the seeds of
    the sweep are used again (the same trainings on new prompts) and `seeds` new ones; else only new ones.

    Args:
        run: The folder of the sweep; the confirmation gets a folder of its own inside it.
        spec: Of the sweep.
        front: Of its records.
        found: Its recommendation.
        seeds: How many new seeds, at least 0.
        top: How many of those that qualify, best first; at least 1.

    Raises:
        SweeperError: nothing qualifies, or nothing would be new.
    """
    if found.chosen is None:
        raise SweeperError(f"nothing to confirm: {found.reason} See `sweeper recommend`")
    halved = any(suite.prompt_split != "all" for suite in spec.evaluation.harmful)
    if not halved and seeds < 1:
        raise SweeperError(
            "the sweep used both halves of its harmful prompts (`prompt_split: all`), so only "
            "seeds can be new; set --seeds to at least 1"
        )
    later = max(spec.seeds) + 1
    new = tuple(range(later, later + seeds))
    evaluation = replace(
        spec.evaluation,
        harmful=tuple(map(_other_half, spec.evaluation.harmful)),
        harmless=tuple(map(_other_half, spec.evaluation.harmless)),
    )
    seeded = (*spec.seeds, *new) if halved else new
    again = spec.model_copy(update={"evaluation": evaluation, "seeds": seeded})
    names = _named(front, found, top)
    key = short_hash([sorted(names), list(seeded)])
    folder = RunFolder(run.confirm / key)
    return Confirmation(again, names, folder, halved, tuple(_notes(spec, new)))


def prepare(confirm: Confirmation, run: RunFolder) -> None:
    """Make the folder, with the points that an adaptive search suggested: they are in no spec.

    Raises:
        RunFolderError: the folder cannot be written to.
    """
    confirm.folder.create()
    if run.rounds.is_file() and not confirm.folder.rounds.exists():
        write_atomic(confirm.folder.rounds, run.rounds.read_bytes())


def _other_half(suite: PromptSuite) -> PromptSuite:
    return replace(suite, prompt_split=OTHER_HALF[suite.prompt_split])


def _named(front: Front, found: Recommendation, top: int) -> dict[str, str]:
    """The best few, then their controls, each configuration once."""
    named: dict[str, str] = {}
    best = found.ranked[:top]
    for place, item in enumerate(best, start=1):
        named[item.config_id] = "recommended" if place == 1 else f"number {place}"
    for place, item in enumerate(best, start=1):
        control = unaveraged_control(item, front.candidates)
        if control is not None:
            of = "" if place == 1 else f" (number {place})"
            named.setdefault(control.config_id, f"without averaging{of}")
    for name, control in (("trainers' defaults", found.default), ("untouched model", found.base)):
        if control is not None:
            named.setdefault(control.config_id, name)
    return named


def _notes(spec: SweepSpec, new: Sequence[int]) -> list[str]:
    suites = (*spec.evaluation.harmful, *spec.evaluation.harmless)
    used = [suite.path or str(suite.suite) for suite in suites if suite.prompt_split == "all"]
    seeds = f"seed{'' if len(new) == 1 else 's'} {', '.join(map(str, new))}"
    if all(suite.prompt_split == "all" for suite in spec.evaluation.harmful):
        return [
            "the sweep used both halves of its harmful prompts (`prompt_split: all`): the prompts are the "
            f"same, and only {seeds} {'is' if len(new) == 1 else 'are'} new; this measures the variation "
            "between training runs, not between prompts"
        ]
    notes = [f"prompts of {', '.join(used)} are the same (`prompt_split: all`)"] if used else []
    if not new:
        notes.append(
            "no new seed: these numbers do not include the variation between training runs"
        )
    return [
        *notes,
        "the held-out rows for the utility are the same; for the utility only the seeds are new",
    ]


def shrinkages(
    search: Front,
    spec: SweepSpec,
    records: Sequence[TrialRecord],
    confirm: Confirmation,
) -> tuple[Shrinkage, ...]:
    """What the search said of each configuration beside what the confirmation says, in order.

    Args:
        search: The front of the sweep.
        spec: Of the sweep, or with the policy's limit.
        records: Of the confirmation, finished or not.
        confirm: As laid out.
    """
    under = confirm.spec.model_copy(update={"constraints": spec.constraints})
    again = {item.config_id: item for item in find_front(records, under).candidates}
    fresh = set(under.seeds) - set(spec.seeds)
    newly = under.model_copy(update={"seeds": tuple(sorted(fresh)) or under.seeds})
    renewed = find_front([r for r in records if r.seed in fresh], newly).candidates
    by_id = {item.config_id: item for item in renewed}
    before = {item.config_id: item for item in search.candidates}
    return tuple(
        _shrinkage(name, before[key], again.get(key), by_id.get(key), under, confirm.new_prompts)
        for key, name in confirm.names.items()
        if key in before
    )


def _shrinkage(
    name: str,
    search: Candidate,
    again: Candidate | None,
    renewed: Candidate | None,
    spec: SweepSpec,
    new_prompts: bool,
) -> Shrinkage:
    unsafe = (
        None if again is None else paired_difference(again, search, UNSAFE, same=not new_prompts)
    )
    utility = None if renewed is None else paired_difference(renewed, search, spec.utility.metric)
    verdict = _verdict(again, spec)
    return Shrinkage(name, search.config_id, search, again, unsafe, utility, verdict)


def _verdict(again: Candidate | None, spec: SweepSpec) -> str:
    """What the confirmation says of the constraints and of the gain, with the demanded confidence."""
    if again is None:
        return "not measured yet"
    if again.role == BASE_ROLE:
        return "is the base model"
    if again.excluded is not None:
        return again.excluded
    lacks = unmet(again, spec) + ([] if again.gain else ["no gain over the base model"])
    return f"{FAILS}: {'; '.join(lacks)}" if lacks else HOLDS
