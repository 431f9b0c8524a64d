"""What every shipped sweep plans and costs: written into the head of its file.

The documentation has `table` on its page about shipped sweeps.

    python benchmarks/headers.py            # print the table
    python benchmarks/headers.py --write    # bring the heads up to date
    python benchmarks/headers.py --check    # end with 1 and name the files that are not

Published figures are used whatever this machine has, so the numbers are the same everywhere.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sweeper.estimate import GPUS, Device, Estimate
from sweeper.estimate.inputs import BUILTIN, Machine, plan_estimate
from sweeper.planning import Accounting, make_plan
from sweeper.spec import SweepSpec, load_spec
from sweeper.spec.load import shipped_specs

H100 = next(gpu for gpu in GPUS if gpu.name.startswith("H100"))


class Facts(NamedTuple):
    """A shipped sweep: its plan, and its cost on `gpu`; a built-in model costs no GPU, so it has none."""

    spec: SweepSpec
    counted: Accounting
    gpu: Device
    cost: Estimate | None


@cache
def facts(name: str) -> Facts:
    """Plan and cost of a sweep, from published figures alone.

    Raises:
        SpecError, ModelError, DataError: see `load_spec` and `plan_estimate`.
    """
    spec = load_spec(name)
    plan = make_plan(spec)
    cost = None
    if not spec.model.path.startswith(BUILTIN):
        machine = Machine((H100,) * spec.compute.processes, 16)
        cost = plan_estimate(plan, spec, workers=1, machine=machine, look=False)
    return Facts(spec, plan.accounting, H100, cost)


def hours_text(hours: float) -> str:
    """Two digits: more would promise what an estimate cannot keep."""
    return f"{float(f'{hours:.2g}'):,g}"


def generated(found: Facts) -> dict[str, str]:
    """The lines of a head that follow from the plan: label -> text."""
    counted, spec = found.counted, found.spec
    lines = {
        "Launch": f"sweeper run {spec.name}",
        "Plan": (
            f"{counted.trajectories} trajectories, {counted.configurations} configurations and "
            f"{counted.controls} controls, {counted.readouts} readouts; "
            f"{counted.ratio:.0f}-fold fewer steps"
        ),
    }
    if found.cost is not None:
        gpus = spec.compute.processes
        each = "one" if gpus == 1 else f"{gpus} together"
        lines["Cost"] = (
            f"about {hours_text(found.cost.gpu_hours)} GPU-hours on {found.gpu.name}, {each} per trial "
            "(analytic estimate)"
        )
    return lines


def with_head(text: str, lines: dict[str, str]) -> str:
    """The text of a sweep file with these lines in its head; other comments stay as they are.

    Raises:
        ValueError: the head lacks one of the lines.
    """
    rows = text.split("\n")
    for label, content in lines.items():
        places = [i for i, row in enumerate(rows) if row.startswith(f"# {label}:")]
        if len(places) != 1:
            raise ValueError(
                f"the head has {len(places)} lines `# {label}:`; exactly one is expected"
            )
        rows[places[0]] = f"# {label + ':':<9} {content}"
    return "\n".join(rows)


def table(every: dict[str, Facts]) -> str:
    """All sweeps as Markdown."""
    head = "| sweep | trajectories | configurations | controls | readouts | GPUs per trial | GPU-hours |"
    rows = [head, "|---|---|---|---|---|---|---|"]
    for name, found in every.items():
        counted = found.counted
        numbers = [counted.trajectories, counted.configurations, counted.controls, counted.readouts]
        cost = ("none", "none")
        if found.cost is not None:
            cost = (f"{found.spec.compute.processes}", hours_text(found.cost.gpu_hours))
        rows.append(f"| `{name}` | {' | '.join([*map(str, numbers), *cost])} |")
    return "\n".join(rows)


def files() -> Iterator[tuple[Path, Callable[[str], str]]]:
    """Every generated file, and what makes its text current."""
    every = {name: facts(name) for name in shipped_specs()}
    for name, path in shipped_specs().items():
        lines = generated(every[name])
        yield path, lambda text, lines=lines: with_head(text, lines)  # type: ignore[misc]


def stale(*, write: bool = False) -> list[str]:
    """Names of the files that are not current; with `write` they are brought up to date."""
    found = []
    for path, current in files():
        old = path.read_text(encoding="utf-8")
        new = current(old)
        if new != old:
            found.append(path.name)
            if write:
                path.write_text(new, encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true", help="bring the heads up to date")
    choice.add_argument("--check", action="store_true", help="end with 1 if some are not")
    asked = parser.parse_args()
    if not (asked.write or asked.check):
        print(table({name: facts(name) for name in shipped_specs()}))
        return
    found = stale(write=asked.write)
    print(f"{'written' if asked.write else 'not current'}: {', '.join(found) or 'none'}")
    if asked.check and found:
        sys.exit(1)


if __name__ == "__main__":
    main()
