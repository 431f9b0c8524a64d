"""The resources of a trial, and the number of concurrent trials on a cluster."""

from collections.abc import Mapping

from sweeper.errors import SweeperError
from sweeper.spec import SweepSpec


def trial_resources(spec: SweepSpec, cluster: Mapping[str, float]) -> dict[str, float]:
    """What one trial requests from Ray. `gpus_per_trial: auto` is one GPU where the cluster has any.

    Raises:
        SweeperError: more than the whole cluster has; Ray would wait for it for ever.
    """
    per_trial = spec.compute.gpus_per_trial
    gpus = float(cluster.get("GPU", 0) > 0) if per_trial == "auto" else float(per_trial)
    wanted = {"CPU": float(spec.compute.cpus_per_trial), "GPU": gpus}
    for kind, amount in wanted.items():
        if amount > cluster.get(kind, 0):
            raise SweeperError(
                f"a trial needs {amount:g} {kind}, but the cluster has {cluster.get(kind, 0):g}; "
                f"lower compute.{kind.lower()}s_per_trial"
            )
    return wanted


def worker_count(
    resources: Mapping[str, float], cluster: Mapping[str, float], limit: int | None
) -> int:
    """How many trials with these resources run at the same time on a cluster, at least one."""
    fitting = [int(cluster[kind] / amount) for kind, amount in resources.items() if amount]
    return max(1, min(fitting if limit is None else [*fitting, limit]))
