"""A Ray cluster of several nodes on this machine; they can join and leave while a driver is connected."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Nodes:
    """A head without CPUs, and the nodes that a test adds and removes."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster

    @property
    def address(self) -> str:
        """For `ray_address`."""
        return str(self._cluster.address)

    def add(self, cpus: int = 1, gpus: int = 0, **more: Any) -> Any:
        """A node that has joined; it is what `remove` takes."""
        return self._cluster.add_node(num_cpus=cpus, num_gpus=gpus, **more)

    def remove(self, node: Any) -> None:
        """The node goes at once, with all of its workers."""
        self._cluster.remove_node(node, allow_graceful=False)


@contextmanager
def ray_nodes(tests: Path = Path(__file__).parents[1]) -> Iterator[Nodes]:
    """A cluster whose workers can import the tests; all of it has ended afterwards."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "OMP_NUM_THREADS")}
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(tests), before["PYTHONPATH"]]))
    os.environ["OMP_NUM_THREADS"] = "1"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    try:
        yield Nodes(cluster)
    finally:
        cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
