"""Rows that teach a model to refuse, and harmless rows that the teaching has not seen.

    python examples/smollm2/rows.py --refusals FILE --alpaca FILE --out FOLDER

Both files are lists of {instruction, input, output}: `safety_only_data_Instructions.json` of the repository
vinid/safety-tuned-llamas, and Alpaca. Into FOLDER come `teach.json` (700 harmful instructions with the
first sentence of their refusal, and 500 short Alpaca rows) and `tune.json` (all other Alpaca rows), in the
same format.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from sweeper.keywords.lists import load_keyword_list

REFUSALS, SHORT_ROWS = 700, 500
SHORT = 400
"""The most characters of a short row, in all its fields."""

Row = dict[str, str]


def first_sentence(text: str) -> str:
    """The text up to its first full stop, question or exclamation mark."""
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def shuffled(rows: Sequence[Row]) -> list[Row]:
    """In the order of the hashes of their instructions: the same on every machine."""
    return sorted(rows, key=lambda row: hashlib.sha256(row["instruction"].encode()).hexdigest())


def make_rows(refusals: Sequence[Row], alpaca: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows to teach with, and the Alpaca rows that are left.

    A refusal is used only where its first sentence is one for the keyword list `sweeper`: some first
    sentences comply ("Yes", "Of course!").
    """
    verdict = load_keyword_list("sweeper").verdict
    cut = [{**row, "output": first_sentence(row["output"])} for row in shuffled(refusals)]
    safe = [row for row in cut if verdict(row["output"]).refusal][:REFUSALS]
    harmless = shuffled(alpaca)
    short = [row for row in harmless if sum(map(len, row.values())) <= SHORT][:SHORT_ROWS]
    return shuffled(safe + short), [row for row in harmless if row not in short]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write teach.json and tune.json.")
    for name in ("refusals", "alpaca", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    given = parser.parse_args()
    files = (given.refusals, given.alpaca)
    teach, tune = make_rows(*(json.loads(file.read_text(encoding="utf-8")) for file in files))
    given.out.mkdir(parents=True, exist_ok=True)
    for kind, rows in (("teach", teach), ("tune", tune)):
        (given.out / f"{kind}.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        print(f"{given.out / kind}.json: {len(rows)} rows")
