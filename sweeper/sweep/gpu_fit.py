"""Which nodes of a joined cluster have GPUs that are too small for the trials of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.data.load import pin_revisions
from sweeper.errors import SweeperError
from sweeper.estimate.inputs import present_gpus
from sweeper.estimate.measured_rates import count_tokens
from sweeper.estimate.preflight import largest_trial
from sweeper.memory import GIB, memory
from sweeper.model.load import model_folder
from sweeper.planning import make_plan
from sweeper.spec import SweepSpec
from sweeper.task import TrajectoryTask

ANSWER_SECONDS = 120.0

NODE_ID = "ray.io/node-id"
"""A label that Ray gives every node."""


class TooSmall(NamedTuple):
    """Nodes to leave out, by id, and the sentence that says so."""

    nodes: list[str]
    warning: str

    @property
    def selector(self) -> dict[str, str]:
        """The labels of a node that may run a trial; nodes that join later are not left out."""
        return {NODE_ID: f"!in({','.join(self.nodes)})"}


def needed_bytes(spec: SweepSpec, task: TrajectoryTask) -> int | None:
    """What the largest trial of a sweep needs on a GPU with one row at a time; None where unknown."""
    try:
        pinned = pin_revisions(task)
        folder = str(model_folder(pinned.model))
        facts = largest_trial(make_plan(spec), spec, folder, count_tokens(pinned))
    except SweeperError:
        return None
    return None if facts is None else memory(facts).peak_bytes


def too_small(
    nodes: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], needed: int | None, share: float
) -> TooSmall | None:
    """The nodes on which a trial does not fit; None where all may be used.

    A node of unknown memory is used. Where no node is left, all are: the estimate may be wrong, and a trial
    that does not fit says so itself.

    Args:
        nodes: Those of `ray.nodes()`.
        sizes: Bytes of the smallest GPU, by node id, where known.
        needed: By a trial; see `needed_bytes`.
        share: Of each GPU that one trial uses.
    """
    with_gpu = [node for node in nodes if node["Alive"] and node["Resources"].get("GPU", 0) > 0]
    if needed is None:
        return None
    known = [node for node in with_gpu if node["NodeID"] in sizes]
    small = [node for node in known if sizes[node["NodeID"]] * share < needed]
    if not small:
        return None
    names = ", ".join(
        f"{n['NodeManagerAddress']} ({sizes[n['NodeID']] / GIB:.0f} GiB)" for n in small
    )
    said = f"a trial needs about {needed / GIB:.1f} GiB of a GPU, more than {names} can give"
    if len(small) == len(with_gpu):
        return TooSmall([], f"{said}; no other node has a GPU, so all are tried")
    return TooSmall([node["NodeID"] for node in small], f"{said}; trials run on the other nodes")


def gpu_memory(nodes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes of the smallest GPU of each node that has some and answers, by node id.

    A node on which Ray has another number of GPUs than it shows is left out: which they are is unknown.
    """
    ask = ray.remote(_smallest)
    asked = {
        node["NodeID"]: ask.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(int(node["Resources"]["GPU"]))
        for node in nodes
        if node["Alive"] and node["Resources"].get("GPU", 0) > 0
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS)
    found = {name: _answer(reference) for name, reference in asked.items()}
    return {name: size for name, size in found.items() if size}


def _answer(reference: Any) -> int | None:
    try:
        return ray.get(reference, timeout=0)  # type: ignore[no-any-return]
    except RayError:
        return None


def _smallest(expected: int) -> int | None:
    """Of this node's GPUs, where there are as many as Ray has."""
    found = [gpu.memory_bytes or 0 for gpu in present_gpus()]
    return min(found) if found and len(found) == expected else None
