"""The keyword lists and judges that gave the rates, and the limits of keyword matching."""

from collections.abc import Sequence
from typing import NamedTuple

from sweeper.judges import RejudgedRecords
from sweeper.keywords.lists import keyword_list_names, load_keyword_list
from sweeper.spec import ResultsSpec
from sweeper.store.records import TrialRecord

OTHER_LIST = "not the list shipped with this version; its hash identifies it"


class KeywordListRow(NamedTuple):
    """A keyword list that was used, or a judge. `sets_rate` marks the one that gives `unsafe_rate`."""

    name: str
    source: str
    matching: str
    phrases: int | None
    digest: str
    sets_rate: bool


def list_rows(
    spec: ResultsSpec, records: Sequence[TrialRecord], judged: RejudgedRecords | None
) -> tuple[KeywordListRow, ...]:
    """The judge, if there is one, above the lists of the spec; the first row sets the rate."""
    return (
        *_judge_rows(judged),
        *(
            _keyword_list(name, records, index == 0 and judged is None)
            for index, name in enumerate(spec.keyword_lists)
        ),
    )


def _judge_rows(judged: RejudgedRecords | None) -> tuple[KeywordListRow, ...]:
    """The judge above the lists, with its coverage."""
    if judged is None:
        return ()
    row = KeywordListRow(judged.judge, judged.summary, "judge", None, judged.digest, True)
    return (row,)


def _keyword_list(name: str, records: Sequence[TrialRecord], sets_rate: bool) -> KeywordListRow:
    """A list as shipped, if the records were judged with it; otherwise only its hash."""
    judged = {
        str(digest)
        for record in records
        if (digest := record.provenance.get("keyword_lists", {}).get(name)) is not None
    }
    shipped = load_keyword_list(name) if name in keyword_list_names() else None
    if shipped is None or judged - {shipped.digest}:
        hashes = ", ".join(sorted(judged)) or "unknown"
        return KeywordListRow(name, OTHER_LIST, "", None, hashes, sets_rate)
    case = "case-sensitive" if shipped.case_sensitive else "any case"
    opening = shipped.matching == "opening"
    where = f"first {shipped.window_words} words" if opening else shipped.matching
    return KeywordListRow(
        name,
        shipped.source,
        f"{where}, {case}",
        len(shipped.phrases),
        shipped.digest,
        sets_rate,
    )
