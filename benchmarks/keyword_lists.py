"""How well every keyword list agrees with people, and what each says of a fine-tuned model's responses.

`python benchmarks/keyword_lists.py` reads the labelled XSTest completions and the responses to AdvBench
beside this repository (`../shared/data`, or a folder given by --data), prints its tables and writes them
to results/, where the documentation takes them from. No response is printed or written. Half a minute.
"""

import argparse
import bisect
import csv
import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coverage import shown

from sweeper.data.labelled import read_labelled
from sweeper.keywords.evaluation import LabelledCompletion, evaluate_lists
from sweeper.keywords.lists import KeywordList, keyword_list_names, load_keyword_list
from sweeper.scoring.verdicts import is_decided
from sweeper.stats import Interval, wilson_interval
from sweeper.store.provenance import git_commit, hardware, package_versions

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "keyword_lists.json"
DATA = ROOT.parent / "shared" / "data"
LABELLED = {"Llama-2": "xstest_labelled_llama2orig", "Mistral": "xstest_labelled_mistralinstruct"}
RUNS = {"1e-4": "lora_lr1e-4", "1e-5": "lora_lr1e-5"}
CURLY = "can\u2019t"
STOPPED = (("sweeper",), ("sweeper", "qi2023", "zou2023"))
"""The lists of a sweep whose early stop is measured: the default, and those of most shipped sweeps."""

Row = dict[str, Any]


def agreement_rows(path: Path, lists: Sequence[KeywordList]) -> list[Row]:
    """Each list compared with people, best first; `full` leaves out what people call a partial refusal."""
    full = dict(_without_partial(path, lists))
    return [
        {
            "list": item.name,
            "agreement": _share(item.agreement.k, item.agreement.n),
            "false refusals": f"{item.false_refusals.k}/{item.false_refusals.n}",
            "missed refusals": f"{item.missed_refusals.k}/{item.missed_refusals.n}",
            "full": full[item.name],
        }
        for item in evaluate_lists(read_labelled(path), lists).lists
    ]


def _without_partial(path: Path, lists: Sequence[KeywordList]) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [
            LabelledCompletion(row["completion"], row["final_label"].startswith("2"))
            for row in csv.DictReader(file)
            if not row["final_label"].startswith("3")
        ]
    for item in evaluate_lists(rows, lists).lists:
        yield item.name, _share(item.agreement.k, item.agreement.n)


def checkpoint_rows(path: Path, lists: Sequence[KeywordList]) -> list[Row]:
    """Per step, the unsafe rate by each list and by the authors, and how many responses hold `CURLY`."""
    by_step: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            by_step.setdefault(row["step"], []).append(row)
    found = []
    for step, rows in by_step.items():
        texts = [row["response"] for row in rows]
        rates = {
            item.name: _share(sum(not item.verdict(text).refusal for text in texts), len(texts))
            for item in lists
        }
        theirs = _share(sum(row["refusal_by_authors"] == "False" for row in rows), len(rows))
        curly = _share(sum(CURLY in text for text in texts), len(texts))
        found.append({"step": int(step), **rates, "authors": theirs, "curly apostrophe": curly})
    return found


def stop_rows(texts: Sequence[str]) -> list[Row]:
    """Words generated until nothing measured on a response depends on the rest, as shares of all."""
    found = []
    for names in STOPPED:
        lists = [load_keyword_list(name) for name in names]
        whole = sum(len(text.split()) for text in texts)
        needed = [_words_needed(text, lists) for text in texts]
        found.append(
            {
                "lists": ", ".join(names),
                "responses": len(texts),
                "words": whole,
                "generated": sum(needed),
                "saved": 1 - sum(needed) / whole,
            }
        )
    return found


def _words_needed(text: str, lists: Sequence[KeywordList]) -> int:
    """A decision stays once it is made, so bisection finds it."""
    words = text.split(" ")
    beginnings = range(1, len(words) + 1)
    place = bisect.bisect_left(
        beginnings, True, key=lambda count: is_decided(" ".join(words[:count]), lists)
    )
    return len(" ".join(words[: place + 1]).split())


def _share(k: int, n: int) -> str:
    low, high = wilson_interval(k, n) if n else Interval(0, 1)
    return f"{k}/{n} = {k / n if n else 0:.3f} ({low:.3f} to {high:.3f})"


def tables(data: Path) -> dict[str, list[Row]]:
    """Every table whose data is there."""
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    found: dict[str, list[Row]] = {}
    for model, name in LABELLED.items():
        path = data / f"{name}.csv"
        if path.is_file():
            found[f"agreement with people: {model}"] = agreement_rows(path, lists)
    texts: list[str] = []
    for rate, name in RUNS.items():
        path = data / "llama32_1b_translation" / f"{name}.csv"
        if path.is_file():
            found[f"unsafe rate by step: learning rate {rate}"] = checkpoint_rows(path, lists)
            with path.open(encoding="utf-8", newline="") as file:
                texts += [row["response"] for row in csv.DictReader(file)]
    if texts:
        found["generation that stops early"] = stop_rows(texts)
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    found = tables(parser.parse_args().data)
    if not found:
        parser.error(
            f"no labelled completions and no responses in {DATA}; name their folder with --data"
        )
    for name, rows in found.items():
        print(f"\n{name}\n\n{shown(rows)}")
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    content: Row = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count(), "words": "2 cores, no GPU"},
        "versions": package_versions(),
        "git_commit": git_commit(),
        "digests": {item.name: item.digest for item in lists},
        "tables": found,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
