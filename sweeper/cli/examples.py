"""An example of every command, which its `--help` ends with."""

from collections.abc import Mapping, Sequence

import typer

EXAMPLES: Mapping[str, Sequence[str]] = {
    "": ("sweeper run miniature",),
    "doctor": ("sweeper doctor --out runs",),
    "init": (
        "sweeper init meta-llama/Llama-3.2-1B-Instruct rows.jsonl --gpu H100 --out mine.yaml",
        "sweeper init ./my-model qa.csv --column prompt=question_text --column completion=reply_text",
    ),
    "prefetch": ("sweeper prefetch llama32_1b_dolly_lora --set data.train.path=mine.jsonl",),
    "plan": ("sweeper plan miniature --set space.max_steps=100 --json",),
    "run": (
        "sweeper run miniature --out runs/first",
        "sweeper run my-sweep.yaml --set 'seeds=[0, 1, 2]'",
    ),
    "status": ("sweeper status runs/miniature",),
    "stop": ("sweeper stop runs/miniature",),
    "resume": ("sweeper resume runs/miniature",),
    "launch": (
        "sweeper launch llama2_7b_dolly_lora --on slurm --nodes 2 --gpus-per-node 8 --dry-run",
        "sweeper launch my-sweep.yaml --on ray --address http://head:8265",
    ),
    "logs": ("sweeper logs runs/miniature --tail 20", "sweeper logs runs/miniature --follow"),
    "verify": ("sweeper verify runs/miniature --sample 5 --seed 1",),
    "trial": ("sweeper trial tasks/0c5d4f2a91.json --out runs/alone",),
    "import": (
        "sweeper import results.csv --out runs/imported",
        "sweeper import responses/ --values chrf.csv --out runs/theirs",
    ),
    "front": ("sweeper front runs/miniature", "sweeper front runs/miniature --wide"),
    "recommend": (
        "sweeper recommend runs/miniature",
        "sweeper recommend runs/miniature --policy max-utility-at --limit 0.02 --confirm",
    ),
    "show": ("sweeper show runs/miniature 431350",),
    "compare": ("sweeper compare runs/miniature 431350 4624a1 9d5d06",),
    "report": ("sweeper report runs/miniature --out report.html",),
    "open": ("sweeper open runs/miniature",),
    "serve": ("sweeper serve runs", "sweeper serve runs/miniature --port 0"),
    "export": (
        "sweeper export runs/miniature --format axolotl --world-size 4",
        "sweeper export runs/miniature --format card --weights",
    ),
    "export-study": ("sweeper export-study runs/miniature --storage sqlite:///study.sqlite3",),
    "judges": ("sweeper judges calibrate labelled.csv",),
    "judges calibrate": ("sweeper judges calibrate labelled.csv --json",),
    "rescore": (
        "sweeper rescore runs/miniature --judge keyword:qi2023",
        "sweeper rescore runs/miniature --judge local:models/guard --format llama-guard-3",
    ),
    "ls": ("sweeper ls runs",),
    "clean": ("sweeper clean runs/miniature", "sweeper clean runs/miniature --weights --yes"),
    "migrate": ("sweeper migrate runs/miniature", "sweeper migrate runs/miniature --write"),
    "schema": ("sweeper schema front",),
}
"""Command as it is typed -> examples, in the order of `--help`; "" is `sweeper` alone."""


def add_examples(app: typer.Typer, prefix: str = "") -> None:
    """Give every command and group of an application its examples as the end of its help.

    Raises:
        KeyError: a command has none.
    """
    for group in app.registered_groups:
        assert group.typer_instance is not None
        name = f"{prefix}{group.name or group.typer_instance.info.name}"
        group.epilog = _text(name)
        add_examples(group.typer_instance, f"{name} ")
    for command in app.registered_commands:
        assert command.callback is not None
        command.epilog = _text(prefix + (command.name or command.callback.__name__))


def _text(name: str) -> str:
    examples = EXAMPLES[name]
    head = "Example:" if len(examples) == 1 else "Examples:"
    # typer joins lines within a paragraph and keeps paragraphs apart.
    return "\n\n".join([head, *(f"  {example}" for example in examples)])
