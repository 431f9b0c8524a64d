"""Run folders as a driver leaves them, and what is read back from them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.factories import make_spec
from sweeper.spec import SweepSpec, dump_spec, spec_hash
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import TrialRecord, read_records


def write_run(
    root: Path,
    records: Iterable[TrialRecord] = (),
    spec: SweepSpec | None = None,
    *,
    name: str | None = None,
    **accounting: Any,
) -> RunFolder:
    """A run folder with these records; `accounting` is what the plan says of itself."""
    folder = RunFolder(root)
    folder.root.mkdir(parents=True, exist_ok=True)
    spec = spec or make_spec()
    folder.spec.write_text(dump_spec(spec), encoding="utf-8")
    plan = {"version": RUN_VERSION, "accounting": accounting, "estimate": None}
    folder.plan.write_text(json.dumps(plan), encoding="utf-8")
    info = {
        "version": RUN_VERSION,
        "name": name or root.name,
        "spec_hash": spec_hash(spec),
        "only": None,
        "inputs": {},
    }
    folder.info.write_text(json.dumps(info), encoding="utf-8")
    append(folder, records)
    return folder


def append(folder: RunFolder, records: Iterable[TrialRecord]) -> None:
    """Add records to those of a run."""
    with folder.records.open("a", encoding="utf-8") as file:
        file.writelines(f"{record.to_json()}\n" for record in records)


def records_of(folder: RunFolder | Path) -> dict[tuple[str, int], TrialRecord]:
    """What a run measured, by configuration and seed, without what two runs cannot share."""
    folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
    records = read_records(folder.records).records
    found = {record.key: record.comparable() for record in records}
    assert len(found) == len(records)
    return found
