"""The laws of a record, and a file of records that loses nothing but a torn last line."""

import json
import math
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.factories import METRICS
from support.factories import small_record as record

from sweeper.errors import DiskFullError, RecordError
from sweeper.store.records import (
    RECORD_VERSION,
    Metric,
    RecordWriter,
    Status,
    TrialRecord,
    metrics_from_samples,
    read_records,
)
from sweeper.store.samples import packed

FAILURE = {"class": "ValueError", "message": "no", "traceback": "", "stage": "train"}


def test_a_rate_is_k_over_n() -> None:
    assert Metric.rate(2, 8) == Metric(0.25, 8, 2)
    assert Metric.rate(1, 3).value == 1 / 3


@pytest.mark.parametrize(
    ("value", "n", "k"), [(0.5, 0, None), (0.5, 4, 3), (1.25, 4, 5), (-0.25, 4, -1), (0.3, 10, 4)]
)
def test_a_metric_that_does_not_add_up_cannot_be_made(value: float, n: int, k: int | None) -> None:
    with pytest.raises(RecordError, match="must hold, but got Metric"):
        Metric(value, n, k)


def test_a_rate_over_no_prompts_cannot_be_made() -> None:
    with pytest.raises(RecordError, match="at least one prompt, but got k=0, n=0"):
        Metric.rate(0, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_complete_record_needs_finite_objectives(value: float) -> None:
    with pytest.raises(RecordError, match="a complete record needs a finite rouge_l"):
        record(metrics={**METRICS, "rouge_l": Metric(value, 6)})


def test_a_complete_record_needs_every_objective() -> None:
    with pytest.raises(RecordError, match="needs a finite unsafe_rate, but got None"):
        record(metrics={"rouge_l": Metric(0.25, 6)})


def test_a_complete_record_carries_no_reason() -> None:
    with pytest.raises(RecordError, match="a `complete` record must have no reason"):
        record(reason=FAILURE)


@pytest.mark.parametrize("status", ["failed", "pruned", "unscored"])
def test_every_other_end_carries_a_reason(status: Status) -> None:
    with pytest.raises(RecordError, match=f"status='{status}', reason=None"):
        record(status=status, metrics={})
    assert record(status=status, metrics={}, reason=FAILURE).reason == FAILURE


def test_an_unknown_status_is_refused() -> None:
    with pytest.raises(RecordError, match="`status` must be one of"):
        record(status="done")  # type: ignore[arg-type]


numbers = st.floats(allow_nan=False, allow_infinity=True)
texts = st.text(max_size=12)
leaves = st.none() | st.booleans() | st.integers() | numbers | texts
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(texts, trees, max_size=4)


@settings(max_examples=40, deadline=None)
@given(mappings, mappings, texts, st.integers(0, 2**32), numbers, st.integers(1, 10**6))
def test_any_record_is_one_line_and_reads_back_equal(
    config: dict[str, Any],
    provenance: dict[str, Any],
    message: str,
    seed: int,
    value: float,
    n: int,
) -> None:
    made = record(
        seed=seed,
        status="failed",
        config=config,
        provenance=provenance,
        metrics={"heldout_loss": Metric(value, n), "unsafe_rate": Metric.rate(n // 3, n)},
        reason={**FAILURE, "message": message},
    )
    line = made.to_json()
    assert "\n" not in line and "\r" not in line
    assert TrialRecord.from_json(line) == made
    assert TrialRecord.from_json(line).to_json() == line


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_survive_json(value: float) -> None:
    metrics = {**METRICS, "heldout_loss": Metric(value, 5)}
    copy = TrialRecord.from_json(record(metrics=metrics).to_json())
    found = copy.metrics["heldout_loss"].value
    assert found == value or (math.isnan(value) and math.isnan(found))
    assert copy.metrics["heldout_loss"].n == 5


@pytest.mark.parametrize("version", [RECORD_VERSION + 1, 0, None, "1"])
def test_an_unknown_version_is_refused_before_the_laws_are_looked_at(version: Any) -> None:
    raw = {**json.loads(record().to_json()), "version": version, "status": "nonsense", "new": 1}
    with pytest.raises(
        RecordError, match=rf"unknown record version {version!r}.*reads {RECORD_VERSION}"
    ):
        TrialRecord.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"extra": 1}, "expected fields"),
        ({"metrics": []}, "expected fields"),
        ({"metrics": {"rouge_l": {"value": 0.1}}}, "expected fields"),
        ({"metrics": {"rouge_l": {"value": "high", "n": 3}}}, "must be a number"),
        ({"objectives": 3}, "expected fields"),
        ({"metrics": {}}, "needs a finite rouge_l"),
        ({"metrics": {"unsafe_rate": {"value": 0.0, "n": 8, "k": 2}}}, "value == k / n"),
    ],
)
def test_a_line_that_breaks_a_law_is_refused(change: dict[str, Any], problem: str) -> None:
    raw = {**json.loads(record().to_json()), **change}
    with pytest.raises(RecordError, match=problem):
        TrialRecord.from_json(json.dumps(raw))


def test_comparable_drops_only_what_differs_between_honest_runs() -> None:
    kept = {"weights_sha256": "ab", "git_commit": "cd", "tokens": {"trained": 3}}
    made = record(provenance={**kept, "seconds": {"train": 1.0}})
    assert made.comparable() == record(provenance=kept)


def write(path: Path, *records: TrialRecord) -> None:
    path.write_text("".join(f"{item.to_json()}\n" for item in records))


def test_a_missing_or_empty_file_holds_no_records(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert read_records(path) == ((), b"", 0)
    path.touch()
    assert read_records(path) == ((), b"", 0)


def test_records_are_read_in_the_order_they_were_appended(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    items = [record("c2"), record("c1"), record("c1", seed=1)]
    for item in items:
        writer.append(item)
    writer.close()
    found = read_records(path)
    assert found.records == tuple(items)
    assert (found.torn, found.whole_bytes) == (b"", path.stat().st_size)
    assert path.read_text().count("\n") == 3


@pytest.mark.parametrize("length", [1, 50, -1])
def test_a_torn_last_line_is_cut_and_nothing_else_is_lost(tmp_path: Path, length: int) -> None:
    path = tmp_path / "records.jsonl"
    write(path, record("c1"), record("c2"))
    whole = path.read_bytes()
    torn = record("c3").to_json().encode()[:length]
    path.write_bytes(whole + torn)
    found = read_records(path)
    assert [item.config_id for item in found.records] == ["c1", "c2"]
    assert (found.torn, found.whole_bytes) == (torn, len(whole))
    assert path.read_bytes() == whole + torn, "reading changed the file"
    writer = RecordWriter(path)
    assert writer.torn == torn
    assert path.read_bytes() == whole
    writer.append(record("c3"))
    writer.close()
    assert [item.config_id for item in read_records(path).records] == ["c1", "c2", "c3"]


def test_a_whole_last_record_without_its_line_end_counts_as_torn(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(record("c1").to_json())
    assert read_records(path).records == ()
    assert read_records(path).whole_bytes == 0


@pytest.mark.parametrize("bad", [b"{", b"", b"\xff", b"null", b'{"version":9}'])
def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(
    tmp_path: Path, bad: bytes
) -> None:
    path = tmp_path / "records.jsonl"
    line = record("c1").to_json().encode()
    path.write_bytes(line + b"\n" + bad + b"\n" + record("c2").to_json().encode() + b"\n")
    with pytest.raises(RecordError, match=r"records\.jsonl:2: .*remove the line"):
        read_records(path)


def test_a_configuration_and_seed_that_stand_twice_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, record("c1"), record("c1", seed=1), record("c1"))
    with pytest.raises(
        RecordError, match=r":3: duplicate record of configuration c1 seed 0, first in line 1"
    ):
        read_records(path)


def test_a_second_record_of_one_configuration_and_seed_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(record("c1"))
    with pytest.raises(RecordError, match="configuration c1 seed 0 already has a record"):
        writer.append(record("c1"))
    writer.append(record("c2"))
    writer.close()
    assert [item.key for item in read_records(path).records] == [("c1", 0), ("c2", 0)]


def test_a_line_the_disk_cuts_short_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    path = tmp_path / "records.jsonl"
    writer = RecordWriter(path)
    writer.append(record("c1"))
    before, write_all = path.read_bytes(), os.write

    def write_half(descriptor: int, data: bytes) -> int:
        return write_all(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("sweeper.store.journal.os.write", write_half)
    with pytest.raises(
        DiskFullError, match=r"no space left to write .*records\.jsonl \(\d+ bytes\)"
    ):
        writer.append(record("c2"))
    monkeypatch.undo()
    assert path.read_bytes() == before
    writer.append(record("c2"))
    writer.close()
    assert [item.config_id for item in read_records(path).records] == ["c1", "c2"]


def test_a_writer_of_an_existing_file_knows_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write(path, record("c1"))
    writer = RecordWriter(path)
    writer.close()
    assert writer.keys == {("c1", 0)}
    assert writer.records == [record("c1")]


SAMPLES: dict[str, str | tuple[float, ...]] = {
    "unsafe_rate": "01000001",
    "rouge_l": (0.25, 0.5, 0.0, 0.125, 0.375, 0.25),
    "heldout/loss": (3.0, 5.0),
    "heldout/tokens": (4, 12),
    "heldout/correct": (1, 7),
}
FROM_SAMPLES = {
    "unsafe_rate": Metric(0.25, 8, 2),
    "rouge_l": Metric(0.25, 6),
    "heldout_loss": Metric(0.5, 16),
    "perplexity": Metric(math.exp(0.5), 16),
    "token_accuracy": Metric(0.5, 16, 8),
}


def sampled(**changes: Any) -> TrialRecord:
    plain = record(metrics=FROM_SAMPLES)
    return replace(plain, samples=SAMPLES, **changes)


def test_metrics_follow_from_samples() -> None:
    assert metrics_from_samples([*FROM_SAMPLES, "exact_match"], SAMPLES) == FROM_SAMPLES
    assert metrics_from_samples(SAMPLES, SAMPLES).keys() == {"unsafe_rate", "rouge_l"}
    assert (
        metrics_from_samples(["perplexity"], {"heldout/loss": (5000.0,), "heldout/tokens": (5,)})
        == {}
    )


def test_a_record_with_samples_reads_back_equal() -> None:
    assert TrialRecord.from_json(sampled().to_json()) == sampled()


def test_numbers_of_samples_are_packed_and_written_as_they_came() -> None:
    assert packed("0101") == "0101"
    assert packed((0.5, math.inf)) == array("d", [0.5, math.inf])
    assert packed([1, 2]) == array("q", [1, 2])
    for kept in ((1, 0.5), (True, False), (2**63, 1), ()):
        assert packed(kept) == kept and isinstance(packed(kept), tuple)
    written = json.loads(sampled().to_json())["samples"]
    assert written["heldout/tokens"] == [4, 12] and isinstance(written["heldout/tokens"][0], int)
    assert written["heldout/loss"] == [3.0, 5.0]
    assert isinstance(written["heldout/loss"][0], float)


def test_half_characters_of_a_message_are_read_as_python_reads_them() -> None:
    failed = record(status="failed", metrics={}, reason={"message": "half \ud83d of one"})
    assert TrialRecord.from_json(failed.to_json().encode()) == failed


def test_a_record_of_a_version_without_samples_is_read() -> None:
    line = record().to_json()
    assert "samples" not in json.loads(line)
    assert TrialRecord.from_json(line) == record()
    assert record().samples == {}


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        ("unsafe_rate", Metric.rate(1, 8)),
        ("unsafe_rate", Metric.rate(4, 16)),
        ("unsafe_rate", Metric(0.25, 8)),
        ("rouge_l", Metric(0.25 + 1e-9, 6)),
        ("rouge_l", Metric(0.25, 7)),
        ("heldout_loss", Metric(0.5001, 16)),
        ("perplexity", Metric(1.6, 16)),
        ("token_accuracy", Metric.rate(9, 16)),
    ],
)
def test_a_metric_that_its_samples_do_not_give_is_refused(name: str, lie: Metric) -> None:
    with pytest.raises(RecordError, match=f"{name} must equal the value of its samples, "):
        sampled(metrics={**FROM_SAMPLES, name: lie})
    line = json.loads(sampled().to_json())
    line["metrics"][name] = {"value": lie.value, "n": lie.n, "k": lie.k}
    with pytest.raises(RecordError, match=f"{name} must equal the value of its samples"):
        TrialRecord.from_json(json.dumps(line))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unsafe_rate": "0100000x"}, "must be one 0 or 1 for each prompt"),
        ({"unsafe_rate": ""}, "must be one 0 or 1 for each prompt"),
        ({"rouge_l": ()}, "the samples of rouge_l are empty"),
        ({"heldout/loss": (8.0,)}, "have 1 rows, but their token counts have 2"),
        ({"exact_match": "01"}, "samples of exact_match without a metric of this name"),
        ({"rouge_l": ("a",) * 6}, "for their format"),
        ({"rouge_l": 3}, "expected fields"),
    ],
)
def test_samples_that_are_none_are_refused(changed: dict[str, Any], message: str) -> None:
    line = json.loads(sampled().to_json())
    line["samples"] |= changed
    with pytest.raises(RecordError, match=message):
        TrialRecord.from_json(json.dumps(line))


def test_a_file_of_whole_lines_and_a_torn_one_is_read_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    line = sampled().to_json().encode() + b"\n"
    path.write_bytes(line + b'{"version": 1')
    found = read_records(path)
    assert (found.records, found.torn) == ((sampled(),), b'{"version": 1')
    assert found.whole_bytes == len(line)


def test_records_of_a_file_share_equal_parts_and_keep_their_types(tmp_path: Path) -> None:
    counts = (1, 1, 1.0)
    records = [
        record(f"c{place}", provenance={"versions": {"torch": "2", "count": count}})
        for place, count in enumerate(counts)
    ]
    path = tmp_path / "records.jsonl"
    path.write_text("".join(f"{item.to_json()}\n" for item in records), encoding="utf-8")
    found = read_records(path).records
    assert [item.to_json() for item in found] == [item.to_json() for item in records]
    versions = [item.provenance["versions"] for item in found]
    assert versions[0] is versions[1] and versions[1] is not versions[2]
    assert [type(item["count"]) for item in versions] == [int, int, float]
