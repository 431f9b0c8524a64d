"""Converts a run folder of an earlier version to the current one.

Version 2 renames keys of the sweep file, roles of controls and fields of a record's provenance; ids,
metrics, samples and responses stay as they are. This is the only code that knows the old names.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import RecordError, RunFolderError
from sweeper.spec import dump_spec, parse_spec, spec_hash
from sweeper.spec.document import read_yaml
from sweeper.store.folder import RUN_VERSION, RunFolder, write_atomic
from sweeper.store.lock import DriverLock
from sweeper.store.records import RECORD_VERSION, TrialRecord

Raw = dict[str, Any]
Step = Callable[[Raw], Raw]

ROLES = {
    "raw_twin": "unaveraged_control",
    "interpolation_twin": "interpolation_control",
    "learning_rate_twin": "learning_rate_control",
}


def _record_1_to_2(raw: Raw) -> Raw:
    """Renames roles of controls, and the flag of responses that ended early, to those of version 2."""
    provenance = dict(raw["provenance"])
    decoding = dict(provenance.get("decoding", {}))
    if "full_responses" in decoding:
        decoding["stop_generation_early"] = not decoding.pop("full_responses")
        provenance["decoding"] = decoding
    return {**raw, "role": ROLES.get(raw["role"], raw["role"]), "provenance": provenance}


STEPS: Mapping[int, Step] = {1: _record_1_to_2}
"""Version -> the conversion of its records to the next version."""

SPEC_KEYS = {
    "evaluation": {},
    "search": {"trajectories": "n_trials", "parallel": "batch_size"},
    "compute": {
        "pack": "adapters_per_trial",
        "stall_minutes": "stall_timeout_minutes",
        "loggers": "trackers",
    },
}
"""Block -> the keys of version 1 that have another name."""


def spec_1_to_2(raw: Raw) -> Raw:
    """The sweep file of a run of version 1 with the keys of version 2.

    The earliest runs had no halves of a suite and used all prompts, which is now stated.
    """
    found = {**raw, **{name: _renamed(raw.get(name), keys) for name, keys in SPEC_KEYS.items()}}
    evaluation = found["evaluation"]
    if "full_responses" in evaluation:
        evaluation["stop_generation_early"] = not evaluation.pop("full_responses")
    for kind in ("harmful", "harmless"):
        suites = evaluation.get(kind) or []
        evaluation[kind] = [
            {"prompt_split": "all", **_renamed(suite, {"half": "prompt_split"})}
            for suite in (suites if isinstance(suites, list) else [suites])
        ]
    if isinstance(found["search"].get("refine"), dict):
        keys = {"parallel": "batch_size"}
        found["search"]["refine"] = _renamed(found["search"]["refine"], keys)
    return found


def _renamed(block: Raw | None, keys: Mapping[str, str]) -> Raw:
    return {keys.get(name, name): value for name, value in (block or {}).items()}


class Migration(NamedTuple):
    """The result of a migration.

    `versions` counts records by version before it. `files` are those that change, relative to the
    folder; `written` says whether they were. A backup of each is kept beside it, as `NAME.before-vN`.
    """

    versions: Mapping[int, int]
    files: tuple[str, ...]
    written: bool = False

    @property
    def older(self) -> int:
        """How many records are of an earlier version."""
        return sum(n for version, n in self.versions.items() if version < RECORD_VERSION)


def backup_of(path: Path) -> Path:
    """The path of a file's backup."""
    return path.with_name(f"{path.name}.before-v{RUN_VERSION}")


def migrate(folder: RunFolder, *, write: bool, steps: Mapping[int, Step] = STEPS) -> Migration:
    """Convert a run, and its confirmations, to RUN_VERSION; without `write`, a dry run.

    Every file is replaced atomically, run.json last: after an interruption it can be repeated. Files and
    records of the current version are unchanged byte for byte, an incomplete last line included. A second
    call does nothing.

    Args:
        folder: The run.
        write: Replace the files; otherwise only compute the changes.
        steps: Version of a record -> step to the next version.

    Raises:
        RecordError: with the line: a newer version, a version that cannot be converted, or a result that
            is not a valid record. Nothing is changed.
        RunFolderError: no run, a newer one, a driver is using the folder, or a different backup exists.
        SpecError: the sweep file of the run has keys that no version had.
    """
    if folder.read_info(range(1, RUN_VERSION + 1)) is None:
        folder.open()  # Raises if the folder holds no run.
    if not write:
        return _migrated(folder, steps)[0]
    with DriverLock(folder):
        found, changes = _migrated(folder, steps)
        for path in changes:
            backup = backup_of(path)
            if backup.exists() and backup.read_bytes() != path.read_bytes():
                raise RunFolderError(
                    f"{backup} exists with different contents; move it away", path=backup
                )
        for path, content in changes.items():
            write_atomic(backup_of(path), path.read_bytes())
            write_atomic(path, content)
    return found._replace(written=bool(changes))


def _migrated(folder: RunFolder, steps: Mapping[int, Step]) -> tuple[Migration, dict[Path, bytes]]:
    """The versions found, and the new content of every file that changes, in the order to write them."""
    runs = [RunFolder(path.parent) for path in sorted(folder.confirm.glob("*/run.json"))]
    versions: Counter[int] = Counter()
    changes: dict[Path, bytes] = {}
    for run in (*runs, folder):
        for path, content in _contents(run, steps, versions if run is folder else Counter()):
            if content != path.read_bytes():
                changes[path] = content
    names = tuple(path.relative_to(folder.root).as_posix() for path in changes)
    return Migration(versions, names), changes


def _contents(
    run: RunFolder, steps: Mapping[int, Step], versions: Counter[int]
) -> Iterator[tuple[Path, bytes]]:
    """Every file of a run that depends on the version, with its content in this one; run.json last."""
    older = _read(run.info).get("version") != RUN_VERSION
    records = run.records.read_bytes() if run.records.exists() else b""
    whole, end, torn = records.rpartition(b"\n")
    lines = whole.split(b"\n") if end else []
    after = list(_lines(run.records, lines, steps, versions))
    if run.judgements.exists():
        hashes = {_hash(a): _hash(b) for a, b in zip(lines, after, strict=True) if a != b}
        yield run.judgements, _judgements(run.judgements, hashes)
    if run.records.exists():
        yield run.records, b"".join(line + b"\n" for line in after) + torn
    for path in sorted(run.trajectories.glob("*/outbox/*.json")):
        (line,) = _lines(path, [path.read_bytes().rstrip(b"\n")], steps, Counter())
        yield path, line
    if not older:
        return
    if run.refinements.exists():
        yield run.refinements, run.refinements.read_bytes().replace(b'"maybe":', b'"uncertain":')
    if run.plan.exists():
        yield run.plan, _json({**_read(run.plan), "version": RUN_VERSION})
    text = run.spec.read_text(encoding="utf-8")
    spec = parse_spec(json.dumps(spec_1_to_2(read_yaml(text))), source=str(run.spec))
    yield run.spec, dump_spec(spec).encode("utf-8")
    info = {**_read(run.info), "version": RUN_VERSION, "spec_hash": spec_hash(spec)}
    yield run.info, _json(info)


def _read(path: Path) -> Raw:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"cannot read {path}: {error}", path=path) from None
    if not isinstance(found, dict):
        raise RunFolderError(f"{path} is damaged: a JSON object is expected", path=path)
    return found


def _json(content: Raw) -> bytes:
    return json.dumps(content, indent=1).encode("utf-8")


def _hash(line: bytes) -> str:
    """The hash by which a judgement refers to a record: see `judges.store.record_hash`."""
    return hashlib.sha256(line).hexdigest()[:16]


def _judgements(path: Path, hashes: Mapping[str, str]) -> bytes:
    """The judgements of a run, each with the hash of its converted record."""
    lines = path.read_bytes().splitlines(keepends=True)
    return b"".join(_judgement(line, hashes) for line in lines)


def _judgement(line: bytes, hashes: Mapping[str, str]) -> bytes:
    """One judgement; an invalid line is unchanged."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        return line
    old = raw.get("record") if isinstance(raw, dict) else None
    new = hashes.get(old) if isinstance(old, str) else None
    return line if old is None or new is None else line.replace(old.encode(), new.encode())


def _lines(
    path: Path, lines: list[bytes], steps: Mapping[int, Step], versions: Counter[int]
) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        try:
            raw = json.loads(line)
            version = raw["version"]
            kept = line
            if version != RECORD_VERSION:
                raw = _stepped(raw, steps)
                kept = TrialRecord.from_json(json.dumps(raw)).to_json().encode("utf-8")
            else:
                TrialRecord.from_json(line.decode("utf-8"))
        except (RecordError, ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"{path}:{number}: {error or type(error).__name__}"
            raise RecordError(problem, path=path, line=number) from None
        versions[version] += 1
        yield kept


def _stepped(raw: Raw, steps: Mapping[int, Step]) -> Raw:
    version = raw["version"]
    if type(version) is not int or version > RECORD_VERSION:
        raise RecordError(
            f"record version {version!r} is newer than this sweeper, which reads {RECORD_VERSION}; "
            "install the sweeper that wrote it, or a later one",
            version=version,
        )
    while version < RECORD_VERSION:
        if version not in steps:
            raise RecordError(
                f"record version {version} cannot be converted to {RECORD_VERSION}", version=version
            )
        version += 1
        raw = {**steps[version - 1](raw), "version": version}
    return raw
