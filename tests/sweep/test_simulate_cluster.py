"""A cluster in virtual time: every record once, and no GPU waits while there is a pack."""

from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import benchmark

from sweeper.store.folder import RunFolder
from sweeper.store.records import read_records

scale, cluster = benchmark("scale"), benchmark("simulate_cluster")

SMALL = scale.SPEC.replace("num: 12", "num: 2").replace("[8, 16, 32, 64]", "[8]")


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_simulated_cluster_writes_every_record_once(tmp_path: Path, gpus: int) -> None:
    spec, plan, tasks = scale.laid_out(SMALL)
    folder = RunFolder(tmp_path / "run")
    folder.create()
    found: dict[str, Any] = cluster.simulate(spec, tasks, folder, gpus)
    keys = [record.key for record in read_records(folder.records).records]
    assert sorted(keys) == sorted(plan.keys())
    assert (found["records"], found["gpus"]) == (len(keys), gpus)
    work = cluster.duration(tasks)
    assert found["makespan_seconds"] >= cluster.START_SECONDS + work / gpus
    assert found["idle_share"] == pytest.approx(1 - work / (gpus * found["makespan_seconds"]))
    if gpus == 1:  # It never waits after its start.
        assert found["makespan_seconds"] == pytest.approx(cluster.START_SECONDS + work)
    else:  # Longest first: at most a third longer than the bound (Graham 1969).
        bound = max(work / gpus, max(cluster.duration([task]) for task in tasks))
        assert found["makespan_seconds"] <= cluster.START_SECONDS + 2 * bound
    assert set(found["driver_cpu_seconds"]) == {"packs", "suggestions", "records", "study"}
