"""Splits rows into training and held-out rows, and drops blank, safety and duplicate rows."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import yaml

from sweeper.data.load import Example, read_examples
from sweeper.data.prompt_hash import normalized_prompt_hash
from sweeper.errors import DataError
from sweeper.task import DataSettings, DataSource

_STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'"})


class Split(NamedTuple):
    """Training rows, held-out rows and safety rows by row number, and counts of the dropped rows.

    `safety` holds the rows of `data.safety` that are mixed into the training rows. `counts` has
    `train_rows`, `heldout_rows`, `safety_rows` where rows are mixed in, and the numbers of dropped rows:

    - `dropped_blank_rows`, `dropped_blank_heldout`: rows without a prompt or without a completion
    - `dropped_safety_rows`: training rows that the safety filter matches
    - `dropped_near_heldout`: training rows that duplicate a held-out row
    - `dropped_heldout_duplicates`: held-out rows that duplicate another one
    - `dropped_scored_prompts`: training rows that ask a prompt of a suite; only where there are any

    `rows_with_untrained_earlier_answers` counts the rows, all kept, with earlier assistant turns: only the
    last turn is trained on. It is there only where there are any.
    """

    train: dict[int, Example]
    heldout: dict[int, Example]
    counts: dict[str, int]
    safety: dict[int, Example] = {}  # noqa: RUF012 - never changed

    @property
    def rows(self) -> list[Example]:
        """The rows that are trained on."""
        return [*self.train.values(), *self.safety.values()]


@dataclass(frozen=True, slots=True)
class SafetyFilter:
    """Substrings that mark completions as safety training data; `source` says where they come from."""

    name: str
    source: str
    case_sensitive: bool
    phrases: tuple[str, ...]

    def phrase_in(self, completion: str) -> str | None:
        """The first listed phrase that a completion contains; curly apostrophes match straight ones."""
        text = completion.translate(_STRAIGHT)
        text = text if self.case_sensitive else text.lower()
        return next((phrase for phrase in self.phrases if phrase in text), None)

    @property
    def digest(self) -> str:
        """The first 16 hex digits of the SHA-256 of everything a match depends on."""
        content = json.dumps(asdict(self), sort_keys=True).encode("utf-8")
        return hashlib.sha256(content).hexdigest()[:16]


@lru_cache
def load_safety_filter() -> SafetyFilter:
    """Load the filter that is shipped with the package."""
    text = (resources.files("sweeper.data") / "row_filters" / "safety.yaml").read_text("utf-8")
    raw = yaml.safe_load(text)
    return SafetyFilter(**{**raw, "phrases": tuple(raw["phrases"])})


def split_rows(settings: DataSettings, scored: Collection[str] = ()) -> Split:
    """Read and split the rows of a sweep; rows excluded by `rows` and `where` are not counted.

    Rows are duplicates if their prompts differ only in case, white space and punctuation of prose (see
    `normalized_prompt`). No held-out row duplicates another one, and no training row duplicates a held-out
    one. Without a held-out source, one row for each of the `heldout_rows` prompts with the smallest hashes
    is held out, independent of the row order and the seed.

    Args:
        settings: The sources.
        scored: Hashes of prompts that the model is scored on; no training row asks one of them.

    Raises:
        DataError: see `load.read_examples`; or no training row is left.
        MissingExtraError: a package that a source needs is not installed.
    """
    train, counts = _training_rows(settings)
    if settings.heldout is None:
        assert settings.heldout_rows is not None
        heldout, near = _split_off(train, settings.heldout_rows)
    else:
        heldout, left_out = _heldout_rows(settings.heldout)
        counts |= left_out
        heldout_hashes = _by_prompt_hash(heldout)
        near = {
            number
            for key, numbers in _by_prompt_hash(train).items()
            if key in heldout_hashes
            for number in numbers
        }
    held = heldout if settings.heldout is None else {}
    rest = {n: row for n, row in train.items() if n not in near and n not in held}
    kept = _unscored(rest, scored)
    if not kept:
        raise DataError(
            f"{settings.train.path}: no training rows are left of {len(train)} after holding out "
            f"{len(heldout)} and leaving out {len(rest)} that ask a prompt of a suite; add rows or lower "
            "`heldout_rows`",
            code="data.empty",
            path=settings.train.path,
            heldout=len(heldout),
        )
    counts["dropped_near_heldout"] = len(near)
    if len(kept) < len(rest):
        counts["dropped_scored_prompts"] = len(rest) - len(kept)
    safety = _safety_rows(settings, len(kept), heldout, scored)
    counts |= {"safety_rows": len(safety)} if settings.safety_share else {}
    earlier = sum(row.has_earlier_answers for row in (*kept.values(), *safety.values()))
    counts |= {"rows_with_untrained_earlier_answers": earlier} if earlier else {}
    sizes = {"train_rows": len(kept), "heldout_rows": len(heldout)}
    return Split(kept, heldout, {**sizes, **counts}, safety)


def _unscored(rows: Mapping[int, Example], scored: Collection[str]) -> dict[int, Example]:
    """The rows whose last user message is not a prompt that the model is scored on."""
    if not scored:
        return dict(rows)
    return {n: row for n, row in rows.items() if normalized_prompt_hash(row.prompt) not in scored}


def _safety_rows(
    settings: DataSettings, rows: int, heldout: Mapping[int, Example], scored: Collection[str]
) -> dict[int, Example]:
    """The safety rows that are mixed into `rows` others: `safety_share` of all, to the nearest row.

    Those with the smallest prompt hashes, so that a larger share keeps the rows of a smaller one. None asks
    what is asked by a held-out row, a suite or another one.

    Raises:
        DataError: there are too few.
    """
    share = settings.safety_share
    if settings.safety is None or not share:
        return {}
    found = _unscored(read_examples(settings.safety).kept, scored)
    held = _by_prompt_hash(heldout)
    first = [min(ns) for key, ns in sorted(_by_prompt_hash(found).items()) if key not in held]
    count = round(share / (1 - share) * rows)
    if len(first) < count:
        raise DataError(
            f"{settings.safety.path}: safety_share {share:g} of {rows} training rows takes {count} safety "
            f"rows with different prompts, but there are {len(first)}; add rows, or lower safety_share",
            code="data.empty",
            path=settings.safety.path,
            key="safety_share",
        )
    return {number: found[number] for number in first[:count]}


def _training_rows(settings: DataSettings) -> tuple[dict[int, Example], dict[str, int]]:
    """The usable rows of the training source, including those that are held out later."""
    train, read = read_examples(settings.train)
    counts = {"dropped_blank_rows": read - len(train)}
    if not settings.filter_safety_rows:
        return train, counts
    phrase_in = load_safety_filter().phrase_in
    kept = {n: row for n, row in train.items() if phrase_in(row.completion) is None}
    if not kept:
        raise DataError(
            f"{settings.train.path}: the safety filter drops all {len(train)} rows; set "
            "`filter_safety_rows: false` or use other data",
            code="data.empty",
            path=settings.train.path,
            key="filter_safety_rows",
        )
    return kept, {**counts, "dropped_safety_rows": len(train) - len(kept)}


def _heldout_rows(source: DataSource) -> tuple[dict[int, Example], dict[str, int]]:
    """The rows of a held-out source; of duplicates, only the first in the file."""
    examples, read = read_examples(source)
    heldout = {numbers[0]: examples[numbers[0]] for numbers in _by_prompt_hash(examples).values()}
    return heldout, {
        "dropped_blank_heldout": read - len(examples),
        "dropped_heldout_duplicates": len(examples) - len(heldout),
    }


def _split_off(train: Mapping[int, Example], count: int) -> tuple[dict[int, Example], set[int]]:
    """One row for each of the `count` prompts with the smallest hashes, and the duplicates of these rows.

    Of duplicates, the first by text is held out, whatever their order in the file.
    """
    heldout, near = {}, set()
    for _, numbers in sorted(_by_prompt_hash(train).items())[:count]:
        first = min(numbers, key=lambda number: train[number])
        heldout[first] = train[first]
        near |= set(numbers) - {first}
    return heldout, near


def _by_prompt_hash(rows: Mapping[int, Example]) -> dict[str, list[int]]:
    """Row numbers by prompt hash, in file order."""
    numbers: dict[str, list[int]] = {}
    for number, row in rows.items():
        numbers.setdefault(normalized_prompt_hash(row.full_prompt), []).append(number)
    return numbers
