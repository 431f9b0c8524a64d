"""The stored responses of a run as a table, with the verdict of the first keyword list."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.analysis import BASE_ROLE
from sweeper.report.answers import Stored, read_stored
from sweeper.runs.fields import encodable
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "config_id",
    "seed",
    "suite",
    "prompt_id",
    "prompt",
    "response",
    "cut",
    "refusal",
    "phrase",
    "base_refusal",
    "flipped",
)

Key = tuple[str, str]


def responses_frame(
    folder: RunFolder,
    records: Sequence[TrialRecord],
    config_ids: Sequence[str] | None,
    suite: str | None,
    keyword_list: str,
) -> "pd.DataFrame":
    """One row per stored response; see `Run.responses`.

    Raises:
        RunFolderError: a file of responses is damaged; the message gives the line.
    """
    bases = {record.seed: record for record in records if record.role == BASE_ROLE}
    read: dict[int, dict[Key, bool | None]] = {}

    def of_base(seed: int) -> dict[Key, bool | None]:
        """The base model's verdicts under the same seed, else under its first one."""
        base = bases.get(seed) or next(iter(bases.values()), None)
        if base is None:
            return {}
        if base.seed not in read:
            read[base.seed] = {
                (row.suite, row.id): _refusal(row) for row in _stored(folder, base, keyword_list)
            }
        return read[base.seed]

    rows = [
        _row(record, row, of_base(record.seed))
        for record in records
        if config_ids is None or record.config_id in config_ids
        for row in _stored(folder, record, keyword_list)
        if suite is None or row.suite == suite or row.suite.startswith(f"{suite}/")
    ]
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS))


def _stored(folder: RunFolder, record: TrialRecord, keyword_list: str) -> Iterator[Stored]:
    path = folder.trial(record.trajectory_id).generations(record.config_id, record.seed)
    if path.exists():
        yield from read_stored(path, (keyword_list,))


def _refusal(row: Stored) -> bool | None:
    verdict = row.verdicts[0]
    return None if verdict is None else verdict.refusal


def _row(record: TrialRecord, row: Stored, base: dict[Key, bool | None]) -> dict[str, Any]:
    verdict, before = row.verdicts[0], base.get((row.suite, row.id))
    refusal = _refusal(row)
    known = refusal is not None and before is not None
    values = {
        "config_id": record.config_id,
        "seed": record.seed,
        "suite": row.suite,
        "prompt_id": row.id,
        "prompt": row.prompt,
        "response": row.response,
        "cut": row.cut,
        "refusal": refusal,
        "phrase": None if verdict is None else verdict.phrase,
        "base_refusal": before,
        "flipped": known and refusal != before,
    }
    return {name: encodable(value) for name, value in values.items()}
