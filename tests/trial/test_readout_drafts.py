"""Readouts scored one by one begin with the responses of the last raw one; no record shows it."""

from pathlib import Path

import pytest
from support.trials import comparable, run_all, task_of
from support.world import World

from sweeper.scoring import generate
from sweeper.scoring.drafts import DraftedRows
from sweeper.store.folder import TrialStorage


@pytest.mark.parametrize("method", ["full", "lora"])
def test_records_of_a_path_with_drafts_are_those_without(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    task = task_of(
        tiny_world,
        f"tuning.method={method}",
        "space.average={values: [raw, {kind: ema, decay: 0.9}]}",
    )
    used: list[int] = []

    class Counted(DraftedRows):
        def __init__(self, *arguments: object) -> None:
            used.append(1)
            super().__init__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "DraftedRows", Counted)
    drafted = run_all(task, tmp_path / "drafted")
    assert (len(used) == len(task.readouts) - 1) == (method == "full")
    monkeypatch.setattr(generate, "can_check", lambda model: False)
    plain = run_all(task, tmp_path / "plain")
    assert comparable(drafted) == comparable(plain)
    for config_id in plain:
        one, other = (
            TrialStorage(tmp_path / name, task.trajectory_id).generations(config_id, task.seed)
            for name in ("drafted", "plain")
        )
        assert one.read_text("utf-8") == other.read_text("utf-8")
