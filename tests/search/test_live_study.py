"""The study beside the records while a run goes on, and what becomes of a damaged one."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from support.factories import base_record, make_record, make_spec, make_sweep
from support.raising import raises

from sweeper.analysis import find_front
from sweeper.search.live_study import REWRITE_SECONDS, LiveStudy, update_journal
from sweeper.search.study import study_trials
from sweeper.spec import SweepSpec
from sweeper.store.records import TrialRecord

Found = dict[str, tuple[object, ...]]


def content(trials: Sequence[optuna.trial.FrozenTrial]) -> Found:
    return {
        trial.user_attrs["config_id"]: (
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            trial.constraints,
        )
        for trial in trials
    }


def read(path: Path) -> optuna.Study:
    """As any other program reads it, with Optuna's own backend."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="synthetic", storage=storage)


def check(path: Path, records: Sequence[TrialRecord], spec: SweepSpec) -> None:
    """The study in the journal is the one the records give, each trial once."""
    front = find_front(records, spec)
    study = read(path)
    wanted = study_trials(front, spec)
    assert content(study.trials) == content([*wanted.values()])
    assert len(study.trials) == len(wanted)
    best = [trial.user_attrs["config_id"] for trial in study.best_trials]
    assert sorted(best) == sorted(item.config_id for item in front.members)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shuffled(spec: SweepSpec, seed: int) -> list[TrialRecord]:
    records = make_sweep(spec)
    order = np.random.default_rng(seed).permutation(len(records))
    return [records[index] for index in order]


@pytest.mark.parametrize("seeds", ["[0]", "[0, 1]"])
def test_it_grows_with_the_records_and_ends_as_they_do(seeds: str, tmp_path: Path) -> None:
    spec = make_spec(f"seeds={seeds}", "space.batch_size={values: [8, 16, 32]}")
    path = tmp_path / "study"
    records = shuffled(spec, 3)
    with LiveStudy(spec, path, clock=Clock()) as live:
        for record in records:
            live.on_record(record)
        ended = study_trials(find_front(records, spec), spec)
        own = [id_ for id_, trial in ended.items() if trial.user_attrs["role"] == "candidate"]
        found = content(read(path).trials)
        assert [found[id_][0] for id_ in own] == [ended[id_].state for id_ in own]
    check(path, records, spec)


def test_a_configuration_waits_for_its_last_seed(tmp_path: Path) -> None:
    spec, path = make_spec("seeds=[0, 1]"), tmp_path / "study"
    live = LiveStudy(spec, path)
    live.on_record(make_record(identity="a", seed=1, status="failed"))
    assert read(path).trials == []
    live.on_record(make_record(identity="a", seed=0))
    assert [trial.user_attrs["status"] for trial in read(path).trials] == ["failed"]


def test_the_base_model_is_noted_when_it_comes(tmp_path: Path) -> None:
    live = LiveStudy(make_spec(), tmp_path / "study")
    assert "base" not in read(tmp_path / "study").user_attrs
    live.on_record(base_record(utility=0.25))
    assert read(tmp_path / "study").user_attrs["base"]["rouge_l"] == 0.25
    assert read(tmp_path / "study").trials == []


def test_further_seeds_and_controls_are_brought_in_at_most_so_often(tmp_path: Path) -> None:
    spec, path, clock = make_spec(), tmp_path / "study", Clock()
    live = LiveStudy(spec, path, clock=clock)
    records = [
        make_record(identity="a", utility=0.5),
        make_record(identity="a", utility=0.9, seed=1),
    ]
    for record in records:
        live.on_record(record)
    assert [trial.values[0] for trial in read(path).trials] == [0.5]
    clock.now = REWRITE_SECONDS - 1
    records.append(make_record(identity="b", unsafe=(200, 256)))
    live.on_record(records[-1])
    assert sorted(trial.values[0] for trial in read(path).trials) == [0.5, 0.85]
    clock.now = REWRITE_SECONDS
    records.append(
        make_record(identity="twin", role="unaveraged_control", utility=0.95, learning_rate=1e-6)
    )
    live.on_record(records[-1])
    check(path, records, spec)
    assert [t.user_attrs["config_id"] for t in read(path).trials] == ["a", "b", "twin"]
    live.on_record(make_record(identity="worse twin", role="unaveraged_control", unsafe=(200, 256)))
    assert len(read(path).trials) == 3
    live.close()
    check(path, records, spec)


def test_a_next_driver_adds_what_is_missing_and_rewrites_nothing(tmp_path: Path) -> None:
    spec, path = make_spec(), tmp_path / "study"
    records = shuffled(spec, 4)
    LiveStudy(spec, path, records[:60]).close()
    check(path, records[:60], spec)
    before = path.read_bytes()
    LiveStudy(spec, path, records[:60]).close()
    assert path.read_bytes() == before
    lagging = [r for r in records[:60] if r.role != "candidate"] + [
        r for r in records if r.role == "candidate"
    ]
    LiveStudy(spec, path, lagging).close()
    check(path, lagging, spec)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[:-7], id="torn"),
        pytest.param(lambda data: data[: len(data) // 2], id="torn in the middle"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[100:], id="without its beginning"),
        pytest.param(lambda data: b"[]\n" + data, id="a list"),
        pytest.param(lambda data: b"\xff\xfe\n" + data, id="no text"),
        pytest.param(lambda data: b"{}\n" * 40, id="other JSON"),
        pytest.param(lambda data: b"SQLite format 3\x00", id="another format"),
        pytest.param(None, id="deleted"),
    ],
)
def test_a_damaged_study_is_made_again(damage: object, tmp_path: Path) -> None:
    spec, path = make_spec(), tmp_path / "study"
    records = shuffled(spec, 5)[:40]
    LiveStudy(spec, path, records).close()
    if callable(damage):
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
    LiveStudy(spec, path, records).close()
    check(path, records, spec)


def test_another_records_study_is_replaced_and_others_are_left_alone(tmp_path: Path) -> None:
    spec, path = make_spec(), tmp_path / "study"
    LiveStudy(make_spec("objectives=[heldout_loss, unsafe_rate]"), path).close()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    optuna.create_study(study_name="mine", storage=storage)
    update_journal(path, find_front([make_record(identity="old")], spec), spec)
    records = [make_record(identity="old", utility=0.2), make_record(identity="new")]
    update_journal(path, find_front(records, spec), spec)
    check(path, records, spec)
    assert {*optuna.get_all_study_names(storage)} == {"mine", "synthetic"}


@pytest.mark.parametrize("loss", ["deleted file", "deleted study", "cut file"])
def test_what_is_lost_while_a_run_goes_on_comes_back(loss: str, tmp_path: Path) -> None:
    spec, path, clock = make_spec(), tmp_path / "study", Clock()
    records = [make_record(identity=name) for name in ("a", "b", "c")]
    live = LiveStudy(spec, path, records[:1], clock=clock)
    if loss == "deleted file":
        path.unlink()
    elif loss == "cut file":
        path.write_bytes(path.read_bytes()[:50])
    else:
        optuna.delete_study(study_name="synthetic", storage=read(path)._storage)
    live.on_record(records[1])
    clock.now = REWRITE_SECONDS
    live.on_record(records[2])
    check(path, records, spec)


def test_a_study_that_cannot_be_written_is_said_once_and_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec, path, clock = make_spec(), tmp_path / "folder" / "study", Clock()
    path.mkdir(parents=True)
    records = [make_record(identity=name) for name in ("a", "b", "c")]
    with caplog.at_level(logging.WARNING), LiveStudy(spec, path, clock=clock) as live:
        for record in records:
            clock.now += REWRITE_SECONDS
            live.on_record(record)
    assert [entry.name for entry in caplog.records] == ["sweeper.search.live_study"]
    assert str(path) in caplog.text and "export-study" in caplog.text
    with raises("study_storage.unwritable", path=path):
        update_journal(path, find_front(records, spec), spec)
    path.rmdir()
    live.close()
    check(path, records, spec)
