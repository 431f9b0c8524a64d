"""What the checks share: the cases as they lie on disk, and a comparison that counts what it compares.

Standard library and PyYAML alone, because every check runs in an environment of its own.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

EXPECTED_CASES = 9

ADAPTERS = ("lora", "qlora")
"""Methods that train an adapter."""


class Case(NamedTuple):
    """One exported configuration."""

    folder: Path
    settings: Mapping[str, Any]

    def file(self, target: str) -> Path:
        """Its configuration file for a target."""
        (found,) = self.folder.glob(f"*.{target}.yaml")
        return found


def cases(root: Path, target: str) -> Iterator[Case]:
    """Every case that was exported for a target; fails where one is missing without a reason."""
    folders = sorted(path.parent for path in root.glob("*/settings.json"))
    assert len(folders) == EXPECTED_CASES, f"{len(folders)} cases in {root}"
    for folder in folders:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if target not in settings["refused"]:
            yield Case(folder, settings)


class Tally:
    """Counts values compared, and remembers which keys."""

    def __init__(self, target: str, package: str) -> None:
        self.target = target
        self.title = f"{target} {metadata.version(package)}"
        self.keys: set[str] = set()
        self.values = 0
        self.cases = 0

    def same(self, case: Case, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Every expected value was understood, type and all."""
        self.cases += 1
        for name, value in expected.items():
            assert name in found, f"{case.folder.name}: {self.target} has no {name}"
            assert equal(found[name], value), (
                f"{case.folder.name}: {self.target} reads {name} = {found[name]!r}, not {value!r}"
            )
            self.keys.add(name)
            self.values += 1

    def report(self, how: str) -> None:
        """One row of the round-trip table."""
        row = (
            self.title,
            how,
            f"{self.cases} files",
            f"{len(self.keys)} keys",
            self.values,
            "equal",
        )
        sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
        sys.stdout.write(f"{self.target}: {', '.join(sorted(self.keys))}\n")


def equal(found: Any, expected: Any) -> bool:
    """Equal, and of the same kind: 1 is not True and "2e-05" is not a number."""
    if isinstance(expected, bool) or expected is None:
        return found is expected
    if isinstance(expected, float):
        return isinstance(found, float | int) and math.isclose(found, expected, rel_tol=1e-12)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(equal, found, expected))
    if isinstance(expected, dict):
        return dict(found) == expected
    return type(found) is type(expected) and bool(found == expected)


def split(settings: Mapping[str, Any], per_device: int, accumulation: int) -> None:
    """The batch is split exactly."""
    whole = per_device * accumulation * settings["world_size"]
    assert whole == settings["batch_size"], (per_device, accumulation, settings)


def shared_fields(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `transformers.TrainingArguments` that a configuration fixes."""
    wsd = settings["lr_scheduler_type"] == "warmup_stable_decay"
    names = (
        "learning_rate",
        "max_steps",
        "warmup_steps",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "max_grad_norm",
        "seed",
    )
    return {
        **{name: settings[name] for name in names},
        "lr_scheduler_kwargs": {"num_decay_steps": settings["decay_steps"]} if wsd else None,
        "bf16": settings["dtype"] == "mixed_bf16",
        "fp16": False,
    }
