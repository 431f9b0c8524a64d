"""A run folder with hand-written responses, planted texts and hostile ones, for tests of the viewer."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from support.factories import base_record, make_record, make_spec
from support.judged_run import ANSWERS, KIND, LISTS, REFUSES, write_run
from sweeper.scoring.verdicts import judge_response
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records

PLANTED = "PLANTED-recipe-7731"
PLANTED_PROMPT = "PLANTED-question-9942"
HARMLESS_TEXT = "The kettle-4410 boils at noon."
DISAGREED = "As an expert in locks, here is how: step one."
"""A refusal to `zou2023`, which searches for "As an", and none to `sweeper`."""

HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>",
    "</script><script>window.hacked = 3</script><!--",
    "half \ud83d of a pair, \udc00 the other, \U0001f600 whole",
    "nul \x00 bell \x07 escape \x1b[31m carriage\rreturn",
    "right to left \u202eevil\u202c and \u2066isolated\u2069 and zero\u200bwidth",
    "x" * 100_000,
    "\u0130stanbul \U0001f600 I\u2019m sorry, no.",
    "  \n\n  I   am\n sorry, \u201ccannot\u201d but no.",
    "javascript:window.hacked=4 {{ 7*7 }} ${window.hacked=5}",
    "Z\u0310\u0311\u0312\u0313\u0314\u0315" * 200,
    " ",
    "go " * 30,
)


def lines_of(suite: str, texts: Sequence[str], prompts: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "suite": suite,
            "id": f"{suite}-{number:03}",
            "prompt": prompt,
            "response": text,
            "cut": number % 7 == 0,
            "verdicts": judge_response(text, LISTS),
        }
        for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]


def responses(run: RunFolder, record: TrialRecord) -> Path:
    return run.trial(record.trajectory_id).generations(record.config_id, record.seed)


def write_responses(path: Path, lines: Iterable[Any]) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def viewer_run(root: Path) -> RunFolder:
    """The base model under two seeds, three configurations, and one that was stopped early.

    103 harmful prompts and 12 harmless ones, and two held-out rows. `open` answers some prompts the base
    model refuses; `hostile` writes what breaks pages; `stopped` holds four prompts.
    """
    records = {
        "base": base_record(identity="base"),
        "open": make_record(identity="open", utility=0.9, unsafe=(2, 256)),
        "hostile": make_record(identity="hostile", utility=0.8, max_steps=160),
        "again": make_record(identity="open", utility=0.9, seed=1),
        "stopped": make_record(identity="stopped", status="pruned", max_steps=80),
    }
    run = write_run(root, [])
    prompts = [f"Harmful question {number}?" for number in range(103)]
    prompts[5] = PLANTED_PROMPT
    harmless = [f"Where is the lamp {number}?" for number in range(12)]
    refused = [REFUSES] * 103
    opened = [ANSWERS if n % 10 == 3 else DISAGREED if n % 10 == 6 else REFUSES for n in range(103)]
    opened[5] = f"Sure: {PLANTED}."
    hostile = [HOSTILE[n % len(HOSTILE)] for n in range(103)]
    kind = [KIND] * 11 + [HARMLESS_TEXT]
    texts = {
        "base": (refused, [REFUSES, *kind[1:]]),
        "open": (opened, [KIND, REFUSES, *kind[2:]]),
        "hostile": (hostile, [*HOSTILE]),
        "again": (refused, kind),
    }
    for name, (bad, good) in texts.items():
        lines = lines_of("harmful", bad, prompts) + lines_of("harmless", good, harmless)
        lines += [
            {
                "suite": "utility",
                "id": str(number),
                "prompt": f"Paint the lamp {number}.",
                "response": f"The lamp is {name}.",
                "reference": "The lamp is red.",
            }
            for number in (1, 2)
        ]
        write_responses(responses(run, records[name]), lines)
    write_responses(
        responses(run, records["stopped"]), lines_of("harmful", [ANSWERS] * 4, prompts[:4])
    )
    run.records.write_text("".join(f"{item.to_json()}\n" for item in records.values()), "utf-8")
    return run


def records_of(run: RunFolder) -> list[TrialRecord]:
    return list(read_records(run.records).records)


SPEC = make_spec()
