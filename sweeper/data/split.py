"""Which rows are trained on, which are held out, and which are dropped. No tokenizer."""

import hashlib
import json
from collections.abc import Mapping
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
    """Training rows and held-out rows by row number, and what was dropped.

    `counts` has `train_rows` and `heldout_rows`, and of the rows read

    - `dropped_blank_rows`, `dropped_blank_heldout`: without a prompt or without a completion
    - `dropped_safety_rows`: training rows that the safety filter matches
    - `dropped_near_heldout`: training rows that duplicate a held-out row
    - `dropped_heldout_duplicates`: held-out rows that duplicate another one
    """

    train: dict[int, Example]
    heldout: dict[int, Example]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class SafetyFilter:
    """Substrings of completions that sound like safety training; `source` is where they are from."""

    name: str
    source: str
    case_sensitive: bool
    phrases: tuple[str, ...]

    def phrase_in(self, completion: str) -> str | None:
        """The first phrase of the list in a completion; curly apostrophes count as straight ones."""
        text = completion.translate(_STRAIGHT)
        text = text if self.case_sensitive else text.lower()
        return next((phrase for phrase in self.phrases if phrase in text), None)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the SHA-256 of everything a match depends on."""
        content = json.dumps(asdict(self), sort_keys=True).encode("utf-8")
        return hashlib.sha256(content).hexdigest()[:16]


@lru_cache
def load_safety_filter() -> SafetyFilter:
    """The filter that comes with the package."""
    text = (resources.files("sweeper.data") / "row_filters" / "safety.yaml").read_text("utf-8")
    raw = yaml.safe_load(text)
    return SafetyFilter(**{**raw, "phrases": tuple(raw["phrases"])})


def split_rows(settings: DataSettings) -> Split:
    """Read the rows of a sweep and split them; what `rows` and `where` leave out is not counted.

    Rows are duplicates when their prompts differ in case, white space and punctuation alone. No held-out
    row is a duplicate of another, and no training row of a held-out one. Without a held-out source, one
    row of each of the `heldout_rows` prompts with the smallest hashes is held out, whatever the order of
    the rows and the seed.

    Raises:
        DataError: see `data.read_examples`; or no row is left to train on.
        MissingExtraError: the extra `data` is not installed, and needed.
    """
    train, counts = _training_rows(settings)
    if settings.heldout is None:
        assert settings.heldout_rows is not None
        heldout, near = _split_off(train, settings.heldout_rows)
    else:
        heldout, left_out = _heldout_rows(settings.heldout)
        counts |= left_out
        asked = _by_prompt_hash(heldout)
        near = {
            n for key, numbers in _by_prompt_hash(train).items() if key in asked for n in numbers
        }
    held = heldout if settings.heldout is None else {}
    kept = {n: row for n, row in train.items() if n not in near and n not in held}
    if not kept:
        raise DataError(
            f"{settings.train.path}: {len(train)} rows, none left to train on after holding out "
            f"{len(heldout)}; give more rows or fewer `heldout_rows`",
            code="data.empty",
            path=settings.train.path,
            heldout=len(heldout),
        )
    counts["dropped_near_heldout"] = len(near)
    return Split(kept, heldout, {"train_rows": len(kept), "heldout_rows": len(heldout), **counts})


def _training_rows(settings: DataSettings) -> tuple[dict[int, Example], dict[str, int]]:
    """The usable rows of the training source, those held out of it later included."""
    train, read = read_examples(settings.train)
    counts = {"dropped_blank_rows": read - len(train)}
    if not settings.filter_safety_rows:
        return train, counts
    phrase_in = load_safety_filter().phrase_in
    kept = {n: row for n, row in train.items() if phrase_in(row.completion) is None}
    if not kept:
        raise DataError(
            f"{settings.train.path}: the safety filter drops all {len(train)} rows; set "
            "`filter_safety_rows: false` or give other rows",
            code="data.empty",
            path=settings.train.path,
            key="filter_safety_rows",
        )
    return kept, {**counts, "dropped_safety_rows": len(train) - len(kept)}


def _heldout_rows(source: DataSource) -> tuple[dict[int, Example], dict[str, int]]:
    """The rows of a held-out source; of duplicates, the first in the file."""
    given, read = read_examples(source)
    heldout = {numbers[0]: given[numbers[0]] for numbers in _by_prompt_hash(given).values()}
    return heldout, {
        "dropped_blank_heldout": read - len(given),
        "dropped_heldout_duplicates": len(given) - len(heldout),
    }


def _split_off(train: Mapping[int, Example], count: int) -> tuple[dict[int, Example], set[int]]:
    """One row of each of the `count` prompts with the smallest hashes, and the duplicates of these.

    Of duplicates, the first by text is held out, whatever their order in the file.
    """
    heldout, near = {}, set()
    for _, numbers in sorted(_by_prompt_hash(train).items())[:count]:
        first = min(numbers, key=lambda number: train[number])
        heldout[first] = train[first]
        near |= set(numbers) - {first}
    return heldout, near


def _by_prompt_hash(rows: Mapping[int, Example]) -> dict[str, list[int]]:
    """Row numbers by the hash of the prompt, in file order."""
    found: dict[str, list[int]] = {}
    for number, row in rows.items():
        found.setdefault(normalized_prompt_hash(row.full_prompt), []).append(number)
    return found
