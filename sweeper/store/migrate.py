"""Bringing the records of an earlier version up to the one this program reads."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import RecordError, RunFolderError
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.store.lock import DriverLock
from sweeper.store.records import RECORD_VERSION, TrialRecord

Step = Callable[[dict[str, Any]], dict[str, Any]]

STEPS: Mapping[int, Step] = {}
"""Version -> what makes the fields of its record those of the next version.

Empty: 1 is the only version there has been. Its records without samples, the earliest, read as they are.
"""


class Migration(NamedTuple):
    """What a records file holds, and what was done.

    `versions` counts records by version, as they were found. `backup` is where the file as it was is kept,
    None where nothing was written.
    """

    versions: Mapping[int, int]
    backup: Path | None

    @property
    def older(self) -> int:
        """How many records are of an earlier version."""
        return sum(n for version, n in self.versions.items() if version < RECORD_VERSION)


def migrate(folder: RunFolder, *, write: bool, steps: Mapping[int, Step] = STEPS) -> Migration:
    """Bring every record of a run to RECORD_VERSION; only look where not asked to write.

    The file is replaced as a whole or not at all, and kept beside it as `records.jsonl.before-vN`. Records
    of the current version stay byte for byte; a torn last line stays torn. Done again, it does nothing.

    Args:
        folder: The run.
        write: Replace the file; otherwise everything but that is done.
        steps: Version -> step to the next version.

    Raises:
        RecordError: with the line: of a newer version, of one that no step leads on from, or what comes
            out breaks a law of records. Nothing is changed.
        RunFolderError: no run, a driver is at work, or another backup is in the way.
    """
    folder.open()
    if not write:
        return _migrated(folder.records, steps)[0]
    with DriverLock(folder):
        found, before, after = _migrated(folder.records, steps)
        if not found.older:
            return found
        backup = folder.records.with_name(f"{folder.records.name}.before-v{RECORD_VERSION}")
        if backup.exists() and backup.read_bytes() != before:
            raise RunFolderError(f"{backup} holds something else; move it away")
        write_atomic(backup, before)
        write_atomic(folder.records, after)
    return found._replace(backup=backup)


def _migrated(path: Path, steps: Mapping[int, Step]) -> tuple[Migration, bytes, bytes]:
    """What was found, the file's bytes, and its bytes with every whole line of today's version."""
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        before = b""
    whole, end, torn = before.rpartition(b"\n")
    versions: Counter[int] = Counter()
    lines = list(_lines(path, whole.split(b"\n") if end else [], steps, versions))
    return Migration(versions, None), before, b"".join(lines) + torn


def _lines(
    path: Path, lines: list[bytes], steps: Mapping[int, Step], versions: Counter[int]
) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
            version = raw["version"]
            if version != RECORD_VERSION:
                raw = _stepped(raw, steps)
                kept = TrialRecord.from_json(json.dumps(raw)).to_json().encode("utf-8")
            else:
                kept = line
                TrialRecord.from_json(line.decode("utf-8"))
        except (RecordError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise RecordError(f"{path}:{number}: {error or type(error).__name__}") from None
        versions[version] += 1
        yield kept + b"\n"


def _stepped(raw: dict[str, Any], steps: Mapping[int, Step]) -> dict[str, Any]:
    version = raw["version"]
    if type(version) is not int or version > RECORD_VERSION:
        raise RecordError(
            f"record version {version!r} is newer than this sweeper, which reads {RECORD_VERSION}; "
            "install the sweeper that wrote it, or a later one"
        )
    while version < RECORD_VERSION:
        if version not in steps:
            raise RecordError(f"nothing leads from record version {version} to {RECORD_VERSION}")
        version += 1
        raw = {**steps[version - 1](raw), "version": version}
    return raw
