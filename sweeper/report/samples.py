"""The data of the sample viewer: which responses are in the page, and why others are not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeper.analysis import BASE_ROLE
from sweeper.errors import DataError, JudgeError, RecordError, RunFolderError
from sweeper.judges import Scored, read_scored
from sweeper.judges.store import record_hash
from sweeper.keywords.lists import KeywordList, load_keyword_list
from sweeper.report.answers import TEXT_LIMIT, Texts, cost, is_harmful, read_stored
from sweeper.report.data import ReportData
from sweeper.report.local_paths import without_folders
from sweeper.spec import ResultsSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord, read_records
from sweeper.task import configuration_name

BUDGET = 4 * 1024**2
"""The default limit of responses in the page, in bytes."""

FULL = "the size limit is reached (set it with `sweeper report --max-response-mib MIB`)"
NONE = "it holds no responses (`--max-response-mib 0`)"
MISSING = "no stored responses"
LARGE = "too large for the rest of the budget"

_FIRST = (
    "untouched model",
    "trainers' defaults",
    "recommended",
    "nearest",
    "recommended, without averaging",
)


class Shown(NamedTuple):
    """A configuration whose responses are in the page: id, names, hyperparameters, seeds."""

    config_id: str
    names: tuple[str, ...]
    values: str
    seeds: tuple[int, ...]


class LeftOut(NamedTuple):
    """Why responses are not in the page, and for which configurations (`ID`, or `ID under seed N`)."""

    why: str
    items: tuple[str, ...]


class SampleData(NamedTuple):
    """The responses in a page. `block` is the viewer's JSON, None where no response is in it."""

    block: Mapping[str, Any] | None
    shown: tuple[Shown, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    redacted: bool


class _Part(NamedTuple):
    """One configuration under one seed, in the order of priority; `named` ones are tried one by one."""

    record: TrialRecord
    names: tuple[str, ...]
    values: str
    named: bool


def gather(
    run: RunFolder,
    records: Iterable[TrialRecord],
    spec: ResultsSpec,
    data: ReportData,
    budget: int = BUDGET,
    redact: bool = False,
) -> SampleData:
    """Choose the configurations whose responses are in the page, and build the viewer's data.

    The untouched model comes first, then the trainers' defaults, the recommended configuration with its
    control, the front and all others, as the table has them. Of the named ones, each that fits is
    included; the others end with the first that does not fit. Only files that may fit are read.

    Args:
        run: The run folder.
        records: Its records.
        spec: The spec they were made from.
        data: The contents of the report.
        budget: Bytes of the page; 0 for no responses.
        redact: Leave prompts and responses of harmful suites out, and the folders of local paths.
    """
    parts = list(_ordered(records, data))
    notes: list[str] = []
    lists = _lists(spec.keyword_lists, parts, notes)
    texts = Texts(lists, redact, size=512)
    judged = _Judged(run, parts if budget else (), notes)
    sets: list[dict[str, Any]] = []
    left: dict[str, list[_Part]] = {}
    full = not budget
    for part in parts:
        why: str | None = NONE if not budget else FULL
        if not full:
            made, why = _read(run, part, tuple(lists), texts, budget, judged)
            sets += [] if made is None else [made]
            full = why == LARGE and not part.named
        if why is not None:
            left.setdefault(FULL if full and budget else why, []).append(part)
    block = None
    if sets:
        block = _block(data, texts, tuple(lists), judged.names, sets, redact)
    noted = tuple(dict.fromkeys(notes))
    return SampleData(
        block=block,
        shown=_shown(sets),
        left_out=tuple(_left_out(why, found) for why, found in left.items()),
        notes=without_folders(noted) if redact else noted,
        redacted=redact,
    )


def _ordered(records: Iterable[TrialRecord], data: ReportData) -> Iterator[_Part]:
    """Every record by priority for readers; seeds of a configuration together."""
    by_id: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_id.setdefault(record.config_id, []).append(record)
    hyperparameters = [name for name in data.columns if name not in ("role", "status")]
    called = {item.config_id: item.name for item in data.compared}
    first = [name_id for name in _FIRST for name_id, found in called.items() if found == name]
    members = [row.config_id for row in data.rows if "front" in row.marks]
    marked = {row.config_id: row.marks for row in data.rows}
    everyone = (*first, *members, *(row.config_id for row in data.rows))
    for config_id in dict.fromkeys(everyone):
        found = sorted(by_id.get(config_id, ()), key=lambda record: record.seed)
        names = dict.fromkeys((called.get(config_id, ""), *marked.get(config_id, ())))
        for record in found:
            named = config_id in first or "front" in names
            trained = record.role != BASE_ROLE
            values = configuration_name(record.config, hyperparameters) if trained else ""
            yield _Part(record, tuple(name for name in names if name), values, named)


def _lists(
    names: Sequence[str], parts: Sequence[_Part], notes: list[str]
) -> dict[str, KeywordList | None]:
    """The lists of a run; None for one that differs from the shipped one, so that no phrase is marked."""
    found: dict[str, KeywordList | None] = {}
    for name in names:
        used = {part.record.provenance.get("keyword_lists", {}).get(name) for part in parts}
        try:
            judge = load_keyword_list(name)
        except DataError:
            found[name] = None
        else:
            found[name] = judge if used <= {judge.digest, None} else None
        if found[name] is None:
            notes.append(
                f"the list {name} of this run is not the one shipped with this version: its phrases are "
                "named, not marked in the responses"
            )
    return found


def _read(
    run: RunFolder,
    part: _Part,
    lists: Sequence[str],
    texts: Texts,
    budget: int,
    judged: "_Judged",
) -> tuple[dict[str, Any] | None, str | None]:
    """The viewer's data of one configuration under one seed, or why it is left out."""
    record = part.record
    path = run.trial(record.trajectory_id).generations(record.config_id, record.seed)
    prompts: list[int] = []
    answers: list[int] = []
    room = budget - texts.bytes
    try:
        for row in read_stored(path, lists):
            prompts.append(texts.prompt(row))
            answers.append(texts.answer(row))
            if texts.staged + 2 * len(answers) > room:
                texts.drop()
                return None, LARGE
    except FileNotFoundError:
        return None, f"{MISSING} ({record.status})"
    except RunFolderError as error:
        texts.drop()
        return None, str(error)
    if not answers:
        return None, f"{MISSING} ({record.status})"
    made = {
        "id": record.config_id,
        "names": part.names,
        "values": part.values,
        "seed": record.seed,
        "status": record.status,
        "order": texts.order(prompts),
        "answers": answers,
        "judged": judged.of(record, texts, prompts),
    }
    if texts.staged + (size := cost(made)) > room:
        texts.drop()
        return None, LARGE
    texts.commit(size)
    return made, None


class _Judged:
    """The verdicts of `rescore` judges on the shown records."""

    def __init__(self, run: RunFolder, parts: Sequence[_Part], notes: list[str]) -> None:
        self._notes = notes
        self._found: dict[tuple[str, int], list[Scored]] = {}
        try:
            scored = read_scored(run)
            if scored and any("judge" in part.record.provenance for part in parts):
                # With a judge the records are changed; judgements refer to those on disk.
                own = read_records(run.records).records
            else:
                own = tuple(part.record for part in parts) if scored else ()
        except (JudgeError, RecordError, OSError) as error:
            notes.append(f"judge verdicts are not shown: {error}".replace(f"{run.root}/", ""))
            scored, own = {}, ()
        self._own = {record.key: record for record in own}
        self.names = sorted({f"{item.judge}@{item.digest[:8]}" for item in scored.values()})
        for item in scored.values():
            self._found.setdefault((item.config_id, item.seed), []).append(item)

    def of(self, record: TrialRecord, texts: Texts, prompts: Sequence[int]) -> list[list[Any]]:
        """`[judge, suite, answers]`, one character per response of the suite, in the stored order."""
        found = []
        for item in self._found.get(record.key, ()):
            name = f"{item.judge}@{item.digest[:8]}"
            own = self._own.get(record.key)
            current = own is not None and record_hash(own) == item.record
            for suite, counts in item.suites.items():
                number = texts.suites.index(suite) if suite in texts.suites else -1
                rows = sum(texts.prompts[i][0] == number for i in prompts)
                if current and rows == counts.responses:
                    found.append([self.names.index(name), number, counts.answers])
                elif rows:
                    self._notes.append(
                        f"what {name} said of {record.config_id} under seed {record.seed} is not shown: it "
                        "was measured again since; run `sweeper rescore` again"
                    )
        return sorted(found)


def _block(
    data: ReportData,
    texts: Texts,
    lists: Sequence[str],
    judges: Sequence[str],
    sets: Sequence[Mapping[str, Any]],
    redact: bool,
) -> dict[str, Any]:
    base = [item.config_id for item in data.compared if item.name == "untouched model"]
    names = [list(judges), [[name, _kind(name)] for name in texts.suites]]
    shown_judges, suites = without_folders(names) if redact else names
    return {
        "redacted": redact,
        "limit": TEXT_LIMIT,
        "base": base[0] if base else None,
        "lists": list(lists),
        "judges": shown_judges,
        "suites": suites,
        "phrases": texts.phrases,
        "prompts": texts.prompts,
        "answers": texts.answers,
        "orders": texts.orders,
        "sets": list(sets),
    }


def _kind(suite: str) -> str:
    """The meaning of a verdict on a suite: `harmful`, `harmless`, or `text` where there is none."""
    return "harmful" if is_harmful(suite) else "harmless" if suite == "harmless" else "text"


def _shown(sets: Iterable[Mapping[str, Any]]) -> tuple[Shown, ...]:
    found: dict[str, Shown] = {}
    for each in sets:
        item = found.get(each["id"], Shown(each["id"], each["names"], each["values"], ()))
        found[item.config_id] = item._replace(seeds=(*item.seeds, each["seed"]))
    return tuple(found.values())


def _left_out(why: str, parts: Sequence[_Part]) -> LeftOut:
    """Seeds are named where a configuration has several."""
    several = len({part.record.seed for part in parts}) > 1
    items = [
        f"{part.record.config_id} under seed {part.record.seed}"
        if several
        else part.record.config_id
        for part in parts
    ]
    return LeftOut(why, tuple(items))
