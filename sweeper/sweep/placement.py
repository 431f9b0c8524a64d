"""The resources of a trial, and the number of concurrent trials on a cluster."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.errors import SweeperError
from sweeper.spec import SweepSpec

Resources = Mapping[str, float]
"""Amounts of `CPU`, `GPU` and others; a kind that is left out is 0."""


ON_DEMAND = ", or keep one machine with it running where machines are started on demand"
"""What helps where Ray's autoscaler has not started any machine of the right kind yet."""


def machines(nodes: Sequence[Mapping[str, Any]]) -> list[Resources]:
    """The resources of each living machine of a cluster, from `ray.nodes()`."""
    return [node["Resources"] for node in nodes if node["Alive"]]


def trial_resources(spec: SweepSpec, cluster: Sequence[Resources]) -> dict[str, float]:
    """What one trial requests from Ray. `gpus_per_trial: auto` is one GPU where the cluster has any.

    Args:
        spec: The sweep.
        cluster: What each machine has; a trial runs on one.

    Raises:
        SweeperError: more than any machine has; Ray would wait for it for ever.
    """
    per_trial = spec.compute.gpus_per_trial
    any_gpu = any(machine.get("GPU", 0) > 0 for machine in cluster)
    gpus = float(any_gpu) if per_trial == "auto" else float(per_trial)
    wanted = {"CPU": float(spec.compute.cpus_per_trial), "GPU": gpus}
    if not any(_at_once(wanted, machine) for machine in cluster):
        raise SweeperError(_too_large(wanted, cluster))
    return wanted


def without_gpu(spec: SweepSpec, wanted: Resources) -> str | None:
    """The warning for a joined cluster on which `auto` found no GPU; None where there is nothing to say."""
    if spec.compute.gpus_per_trial != "auto" or wanted["GPU"]:
        return None
    return (
        "no machine of the cluster has a GPU yet, so trials run on CPUs for the whole sweep; set "
        f"compute.gpus_per_trial to 0 if that is meant, else stop it and wait for a GPU{ON_DEMAND}"
    )


def worker_count(wanted: Resources, cluster: Sequence[Resources], limit: int | None) -> int:
    """How many trials with these resources run at the same time on a cluster, at least one."""
    fitting = sum(_at_once(wanted, machine) for machine in cluster)
    return max(1, fitting if limit is None else min(fitting, limit))


def _at_once(wanted: Resources, machine: Resources) -> int:
    """How many trials fit on a machine; 1 for one that requests nothing."""
    return min(
        (int(machine.get(kind, 0) / amount) for kind, amount in wanted.items() if amount), default=1
    )


def _too_large(wanted: Resources, cluster: Sequence[Resources]) -> str:
    for kind, amount in wanted.items():
        most = max((machine.get(kind, 0) for machine in cluster), default=0)
        if amount > most:
            return (
                f"a trial needs {amount:g} {kind}, but the largest machine of the cluster has {most:g}; "
                f"lower compute.{kind.lower()}s_per_trial{ON_DEMAND if most == 0 else ''}"
            )
    both = " and ".join(f"{amount:g} {kind}" for kind, amount in wanted.items())
    return (
        f"a trial needs {both}, but no machine of the cluster has both; lower compute.cpus_per_trial "
        "or compute.gpus_per_trial"
    )
