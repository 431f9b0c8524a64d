"""Verdicts on disk: append-only files beside the records, which are not changed.

`judgements.jsonl` has one line per judge, configuration and seed with the counts of its suites; the last
line of the same three is valid. `verdicts/DIGEST.jsonl` caches the verdicts of an expensive judge by
content.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweeper.errors import JudgeError
from sweeper.judges.base import Judgement
from sweeper.store.folder import RunFolder
from sweeper.store.journal import Journal, read_json_lines
from sweeper.store.records import TrialRecord

SCORED_VERSION = 1


YES, NO, ABSTAINED, CUT = "1", "0", "-", "c"


class Counts(NamedTuple):
    """The verdicts of one judge on one suite of one record.

    `answers` has one character per response, in the order of the stored ones: YES or NO to the suite's
    question, ABSTAINED, or CUT where a response was truncated and could not be judged. `same` of the
    judged agree with the first keyword list, which answers yes for `listed` of them.
    """

    answers: str
    same: int
    listed: int

    @property
    def responses(self) -> int:
        """Number of responses."""
        return len(self.answers)

    @property
    def positive(self) -> int:
        """Number of yes answers."""
        return self.answers.count(YES)

    @property
    def judged(self) -> int:
        """Number of responses with an answer."""
        return self.positive + self.answers.count(NO)

    @property
    def cut(self) -> int:
        """Number of truncated responses that could not be judged."""
        return self.answers.count(CUT)


class Scored(NamedTuple):
    """One line of judgements.jsonl; `record` is the hash of the record whose responses were judged."""

    judge: str
    about: str
    digest: str
    config_id: str
    seed: int
    record: str
    suites: Mapping[str, Counts]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Of lines with the same key the last one is valid."""
        return self.judge, self.digest, self.config_id, self.seed

    def to_line(self) -> dict[str, Any]:
        """The line as JSON."""
        suites = {name: counts._asdict() for name, counts in self.suites.items()}
        return {**self._asdict(), "suites": suites, "version": SCORED_VERSION}


def record_hash(record: TrialRecord) -> str:
    """A hash of the record a judgement belongs to: it changes when the record is measured again."""
    return hashlib.sha256(record.to_json().encode("utf-8")).hexdigest()[:16]


def open_journal(path: Path) -> Journal:
    """Open a file of verdicts or judgements for appending.

    Raises:
        JudgeError: another process is writing to it.
    """
    return Journal(path, JudgeError)


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; a missing file has none.

    Raises:
        JudgeError: with file and line number: a line that is not a JSON object.
    """
    remedy = "remove the line, and `rescore` again"
    found = read_json_lines(path, damaged=JudgeError, remedy=remedy)
    for number, line in enumerate(found, start=1):
        if not isinstance(line, dict):
            raise JudgeError(
                f"{path}:{number}: not a JSON object; {remedy}",
                code="judge.damaged",
                path=path,
                line=number,
            )
    return found


class VerdictCache:
    """The verdicts of one judge by content: on disk where the judge is cacheable, in memory otherwise."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._found: dict[str, Judgement] = {}
        lines = () if journal is None else read_objects(journal.path)
        for number, line in enumerate(lines, start=1):
            unsafe, refusal = line.get("unsafe"), line.get("refusal")
            if "key" not in line or not {type(unsafe), type(refusal)} <= {bool, type(None)}:
                raise JudgeError(
                    f"line {number} of the cached verdicts is damaged; remove it",
                    code="judge.damaged",
                    line=number,
                )
            self._found[line["key"]] = Judgement(unsafe, refusal, str(line.get("evidence")))

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def get(self, key: str) -> Judgement | None:
        """The judgement of a content, or None."""
        return self._found.get(key)

    def add(self, key: str, judgement: Judgement) -> None:
        """Store a judgement; on disk if it is final."""
        self._found[key] = judgement
        if self._journal is not None and judgement.final:
            unsafe, refusal, evidence, _ = judgement
            self._journal.append_json(
                {"key": key, "unsafe": unsafe, "refusal": refusal, "evidence": evidence}
            )


def verdicts_path(folder: RunFolder, digest: str) -> Path:
    """The file with the verdicts of one judge."""
    return folder.root / "verdicts" / f"{digest}.jsonl"


def read_scored(folder: RunFolder) -> dict[tuple[str, str, str, int], Scored]:
    """The judgements of a run, by `Scored.key`.

    Raises:
        JudgeError: the file is damaged, or of another version.
    """
    path = folder.judgements
    return scored_of(path, read_objects(path))


def scored_of(
    path: Path, lines: Iterable[Mapping[str, Any]]
) -> dict[tuple[str, str, str, int], Scored]:
    """Lines of judgements.jsonl as values; of the same key the last one is valid.

    Raises:
        JudgeError: with the line number: another version, or not the expected fields.
    """
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.get("version") != SCORED_VERSION:
            raise JudgeError(
                f"{path}:{number}: version {line.get('version')!r} is unknown; this sweeper reads "
                f"{SCORED_VERSION}",
                code="judge.version",
                path=path,
                line=number,
            )
        try:
            fields = {name: value for name, value in line.items() if name != "version"}
            suites = {name: Counts(**counts) for name, counts in fields.pop("suites").items()}
            item = Scored(suites=suites, **fields)
            if any(set(counts.answers) - {YES, NO, ABSTAINED, CUT} for counts in suites.values()):
                raise TypeError("an answer is none of 1, 0, -, c")
        except (TypeError, KeyError, AttributeError) as error:
            raise JudgeError(
                f"{path}:{number}: not the expected fields ({error}); remove the line, and `rescore` "
                "again",
                code="judge.damaged",
                path=path,
                line=number,
            ) from None
        found[item.key] = item
    return found
