"""How long the Llama-2 and Llama-3.2 sweeps take on 1, 8 and 64 GPUs by the cost model, for the docs.

`python benchmarks/reproduce_table.py` prints it.

Published figures are used whatever this machine has, so the numbers are the same everywhere.
"""

import sys

from headers import H100, hours_text

from sweeper.estimate.inputs import Machine, plan_estimate
from sweeper.planning import make_plan
from sweeper.spec import load_spec
from sweeper.spec.load import shipped_specs

COUNTS = (1, 8, 64)
"""GPUs: one, a node, eight nodes."""

CORES_PER_GPU = 8


def names() -> list[str]:
    """The shipped sweeps of Llama 2 and Llama 3.2."""
    return [name for name in shipped_specs() if name.startswith(("llama2_", "llama32_"))]


def row(name: str) -> list[str]:
    """One line: GPUs of a trial, GPU-hours, hours on so many GPUs; a dash where a trial needs more."""
    spec = load_spec(name)
    plan = make_plan(spec)
    each = spec.compute.processes
    machine = Machine((H100,) * each, CORES_PER_GPU * each)
    hours, total = [], 0.0
    for count in COUNTS:
        if count < each:
            hours.append("-")
            continue
        made = plan_estimate(plan, spec, workers=count // each, machine=machine, look=False)
        total = total or made.gpu_hours
        hours.append(hours_text(made.wall_seconds / 3600))
    return [f"`{name}`", str(plan.accounting.trajectories), str(each), hours_text(total), *hours]


def table() -> str:
    """All of them as Markdown."""
    heads = [f"hours on {count} GPU{'' if count == 1 else 's'}" for count in COUNTS]
    head = ["sweep", "trajectories", "GPUs per trial", "GPU-hours", *heads]
    lines = [head, ["---"] * len(head), *map(row, names())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
