"""A run's copy in an object store: it follows, it comes back, and it never mixes two runs."""

import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from support.factories import make_spec, make_sweep
from support.fake_trials import Records, Storages
from support.raising import raises
from support.world import World, spec_text

from sweeper.errors import SpecError, SweeperError
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import SweepSpec, parse_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.mirror import Mirror
from sweeper.store.object_store import CREDENTIALS, open_store
from sweeper.store.records import TrialRecord, read_records
from sweeper.store.retry import RetryPolicy
from sweeper.store.trial_log import LogReader
from sweeper.sweep.driver import Keys
from sweeper.sweep.run import SweepCallbacks, run_sweep
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_pack, run_trajectory

URL = "s3://bucket/some/run"
SOON = RetryPolicy(first_seconds=0.001, longest_seconds=0.001, total_seconds=0.005)


AT_ONCE = RetryPolicy(first_seconds=0.001, longest_seconds=0.001, total_seconds=0.001)


class Store:
    """A folder that is used like an object store, and that can be away, or break at a write."""

    def __init__(self, root: Path) -> None:
        (root / "bucket").mkdir(parents=True, exist_ok=True)
        self._real = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
        self.root = root / "bucket" / "some" / "run"
        self.away = False
        self.message = "AWS Error NETWORK_CONNECTION: could not connect"
        self.writes_left = -1

    def _ask(self) -> None:
        if self.away:
            raise OSError(self.message)

    def get_file_info(self, what: Any) -> Any:
        self._ask()
        return self._real.get_file_info(what)

    def open_input_stream(self, path: str) -> Any:
        self._ask()
        return self._real.open_input_stream(path)

    def delete_file(self, path: str) -> None:
        self._ask()
        self._real.delete_file(path)

    def open_output_stream(self, path: str) -> Any:
        self._ask()
        if self.writes_left == 0:
            raise OSError("AWS Error SLOW_DOWN")
        self.writes_left -= 1
        self._real.create_dir(path.rpartition("/")[0], recursive=True)
        return self._real.open_output_stream(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def mirror(store: Store, folder: RunFolder, url: str = URL, **options: Any) -> Mirror:
    options = {"policy": SOON, "push_seconds": 0.0, "sleep": lambda seconds: None, **options}
    return Mirror(folder, url, open_store=lambda url: (store, url.removeprefix("s3://")), **options)


RECORDS = make_sweep()[:12]


def add(folder: RunFolder, records: list[TrialRecord]) -> None:
    """What a driver does with records, responses first."""
    for record in records:
        storage = folder.trial(record.trajectory_id)
        storage.create()
        storage.generations(record.config_id, record.seed).write_text(
            f'{{"id": "{record.config_id}"}}\n', encoding="utf-8"
        )
        storage.progress.write_text("{}", encoding="utf-8")
        storage.checkpoint.write_bytes(b"large")
        with folder.records.open("a", encoding="utf-8") as file:
            file.write(f"{record.to_json()}\n")


def begun(root: Path, key: str = "k") -> RunFolder:
    folder = RunFolder(root)
    folder.create()
    folder.info.write_text(json.dumps({"version": RUN_VERSION, "spec_hash": key}), encoding="utf-8")
    folder.spec.write_text("version: 1\n", encoding="utf-8")
    return folder


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "checkpoint" not in path.name
    }


def test_what_was_sent_comes_back_on_an_empty_disk(store: Store, tmp_path: Path) -> None:
    here = begun(tmp_path / "here")
    first = mirror(store, here)
    assert first.pull("k") == 0
    add(here, RECORDS[:5])
    assert first.push() > 5 and first.push() == 0
    add(here, RECORDS[5:])
    with here.records.open("ab") as file:
        file.write(b'{"torn')
    decision = begun(here.confirm / "max-utility-at-0.02")
    add(decision, RECORDS[:2])
    (here.confirm / ".hidden").mkdir()
    first.push()
    assert not list(store.root.rglob("checkpoint*"))
    assert len(read_records(store.root / "confirm/max-utility-at-0.02/records.jsonl").records) == 2
    there = RunFolder(tmp_path / "there")
    there.create()
    (store.root / "trajectories" / "x").mkdir(parents=True)
    (store.root / "confirm" / "x").mkdir(parents=True)
    (store.root / "confirm" / "x" / "evil.sh").write_text("not ours", encoding="utf-8")
    (store.root / "trajectories" / "x" / "evil.sh").write_text("not ours", encoding="utf-8")
    second = mirror(store, there)
    assert second.pull("k") == len(contents(there.root)) > len(RECORDS)
    expected = contents(here.root)
    expected["records.jsonl"] = expected["records.jsonl"].removesuffix(b'{"torn')
    assert contents(there.root) == expected
    assert list(read_records(there.records).records) == RECORDS
    assert second.pull("k") == 0
    (store.root / "trajectories" / "x" / "evil.sh").unlink()
    (store.root / "confirm" / "x" / "evil.sh").unlink()
    second.push()
    assert contents(store.root) == contents(there.root)


def test_checkpoints_follow_the_records_and_go_when_their_path_has_finished(
    store: Store, tmp_path: Path
) -> None:
    here = begun(tmp_path / "here")
    first = mirror(store, here, checkpoints=True)
    assert first.pull("k") == 0
    add(here, RECORDS[:4])
    storage = here.trial(RECORDS[0].trajectory_id)
    for name in ("checkpoint-before.safetensors", "checkpoint-new.safetensors"):
        (storage.trajectory / name).write_bytes(b"not the newest whole one")
    storage.shard(1, 2).write_bytes(b"of a second process")
    place = storage.checkpoint.relative_to(here.root)
    order: list[str] = []
    write = store.open_output_stream

    def watched(path: str) -> Any:
        if path.endswith("run.json"):  # What is written meanwhile is not sent before its records.
            (here.root / "fresh").write_bytes(b"ahead of the records")
            (here.root / "fresh").replace(storage.checkpoint)
        order.append(path.rpartition("/")[2])
        return write(path)

    store.open_output_stream = watched  # type: ignore[method-assign]
    first.push()
    there = {path.relative_to(store.root).as_posix() for path in store.root.rglob("checkpoint*")}
    trials = {record.trajectory_id for record in RECORDS[:4]}
    shard = storage.shard(1, 2).relative_to(here.root).as_posix()
    assert there == {f"trajectories/{name}/checkpoint.safetensors" for name in trials} | {shard}
    assert (store.root / place).read_bytes() == b"large"
    assert all(name.startswith("checkpoint") for name in order[-len(there) :])
    assert order.index("records.jsonl") == len(order) - len(there) - 1
    first.push()
    assert (store.root / place).read_bytes() == b"ahead of the records"
    elsewhere = RunFolder(tmp_path / "elsewhere")
    elsewhere.create()
    second = mirror(store, elsewhere, checkpoints=True)
    second.pull("k")
    assert (elsewhere.root / place).read_bytes() == b"ahead of the records"
    os.utime(elsewhere.root / place, (1, 1))
    assert mirror(store, elsewhere, checkpoints=True).pull("k") == 1, "a newer one is there"
    os.utime(elsewhere.root / place)
    assert mirror(store, elsewhere, checkpoints=True).pull("k") == 0
    plain = RunFolder(tmp_path / "plain")
    plain.create()
    mirror(store, plain).pull("k")
    assert not list(plain.root.rglob("checkpoint*"))
    gone = elsewhere.trial(RECORDS[0].trajectory_id)
    (elsewhere.root / place).replace(gone.trajectory / "checkpoint-before.safetensors")
    second.push()
    assert (store.root / place).exists(), "it is being replaced"
    gone.drop_checkpoints()
    (store.root / shard).unlink()  # Such as by a rule of the bucket.
    second.push()
    assert not (store.root / place).exists() and not (store.root / shard).exists()
    assert len(list(store.root.rglob("checkpoint*"))) == len(trials) - 1
    assert list(read_records(store.root / "records.jsonl").records) == RECORDS[:4]


def test_whoever_is_behind_is_brought_up_to_date(store: Store, tmp_path: Path) -> None:
    ahead, behind = begun(tmp_path / "ahead"), begun(tmp_path / "behind")
    add(behind, RECORDS[:3])
    add(ahead, RECORDS[:8])
    mirror(store, ahead).push()
    assert mirror(store, behind).pull("k") > 0
    assert list(read_records(behind.records).records) == RECORDS[:8]
    add(ahead, RECORDS[8:])
    again = mirror(store, ahead)
    assert again.pull("k") == 0
    again.push()
    assert (store.root / "records.jsonl").read_bytes() == ahead.records.read_bytes()


def test_two_runs_are_never_mixed(store: Store, tmp_path: Path) -> None:
    here, other = begun(tmp_path / "here"), begun(tmp_path / "other")
    add(here, RECORDS[:4])
    sending = mirror(store, here)
    sending.push()
    add(other, RECORDS[4:7])
    before = contents(store.root), contents(other.root)
    with raises("mirror.other_run"):
        mirror(store, other).pull("k")
    with raises("mirror.other_spec", found="k", expected="z"):
        mirror(store, RunFolder(tmp_path / "third")).pull("z")
    with raises("mirror.holds_run"):
        mirror(store, here).pull("k", fresh=True)
    assert (contents(store.root), contents(other.root)) == before
    copied = RunFolder(tmp_path / "copied")
    copied.create()
    beside = mirror(store, copied)
    beside.pull("k")
    add(copied, RECORDS[7:8])
    beside.push()
    add(here, RECORDS[8:9])
    with raises("mirror.other_driver"):
        sending.push()
    assert list(read_records(store.root / "records.jsonl").records) == [*RECORDS[:4], RECORDS[7]]


def test_at_every_moment_the_store_holds_a_run(store: Store, tmp_path: Path) -> None:
    here = begun(tmp_path / "here")
    sending = mirror(store, here)
    add(here, RECORDS[:6])
    for writes in range(40):
        store.writes_left = writes % 3
        with pytest.raises(OSError, match="SLOW_DOWN") if writes < 6 else _either():
            sending.push()
        records = read_records(store.root / "records.jsonl").records
        for record in records:
            assert (store.root / f"generations/{record.config_id}-{record.seed}.jsonl").is_file()
        if writes == 20:
            assert len(records) == 6
            add(here, RECORDS[6:])
    assert len(read_records(store.root / "records.jsonl").records) == len(RECORDS)


class _either:
    """With or without the error."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        return isinstance(error, OSError)


def test_an_outage_holds_nothing_up_and_is_made_up_for(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = begun(tmp_path / "here")
    sending = mirror(store, here)
    sending.pull("k")
    store.away = True
    with caplog.at_level(logging.WARNING), sending.observing() as on_record:
        for record in RECORDS:
            add(here, [record])
            on_record(record)
        _until(lambda: "the sweep continues" in caplog.text)
        store.away = False
        _until(lambda: "up to date again" in caplog.text)
    assert (store.root / "records.jsonl").read_bytes() == here.records.read_bytes()
    assert caplog.text.count("the sweep continues") == 1


def _until(true: Any) -> None:
    """Another thread makes it true."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_store_that_stays_away_is_said_and_sent_to_by_the_next_run(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = begun(tmp_path / "here")
    sending = mirror(store, here)
    sending.pull("k")
    with caplog.at_level(logging.WARNING), sending.observing() as on_record:
        store.away = True
        add(here, RECORDS)
        on_record(RECORDS[-1])
    assert "Run the same command again to upload the rest" in caplog.text
    assert not (store.root / "records.jsonl").exists()
    pauses: list[float] = []
    with raises("mirror.unreachable", variables=CREDENTIALS["s3"]):
        mirror(store, here, sleep=pauses.append).pull("k")
    assert pauses == pytest.approx([0.001] * 5)
    store.away = False
    again = mirror(store, here)
    again.pull("k")
    with again.observing():
        pass
    assert (store.root / "records.jsonl").read_bytes() == here.records.read_bytes()


def test_another_driver_ends_the_sweep_at_its_next_record(store: Store, tmp_path: Path) -> None:
    here = begun(tmp_path / "here")
    sending = mirror(store, here)
    sending.pull("k")
    with raises("mirror.other_driver"), sending.observing() as on_record:
        store.root.mkdir(parents=True)
        (store.root / "records.jsonl").write_text("theirs\n", encoding="utf-8")
        add(here, RECORDS[:1])
        end = time.monotonic() + 30
        while time.monotonic() < end:
            on_record(RECORDS[0])
    assert (store.root / "records.jsonl").read_text(encoding="utf-8") == "theirs\n"


def test_a_bucket_has_to_be_there(store: Store, tmp_path: Path) -> None:
    with raises("mirror.no_bucket", bucket="elsewhere"):
        mirror(store, begun(tmp_path / "here"), "s3://elsewhere/run").pull("k")


def test_a_folder_can_be_the_mirror(tmp_path: Path) -> None:
    url = (tmp_path / "share" / "run").as_uri()
    here, back = begun(tmp_path / "here"), RunFolder(tmp_path / "back")
    add(here, RECORDS)
    sending = Mirror(here, url)
    assert sending.pull("k") == 0 and sending.push() > len(RECORDS) and sending.push() == 0
    assert contents(tmp_path / "share" / "run") == contents(here.root)
    back.create()
    assert Mirror(back, url).pull("k") > len(RECORDS)
    assert contents(back.root) == contents(here.root)
    with raises("mirror.other_spec"):
        Mirror(RunFolder(tmp_path / "other"), url).pull("z")


@pytest.mark.parametrize(
    ("url", "kind", "place"),
    [
        ("gs://bucket/some/run", fs.GcsFileSystem, "bucket/some/run"),
        ("abfs://box@account.dfs.core.windows.net/run", fs.AzureFileSystem, "box/run"),
        ("abfss://box@account.dfs.core.windows.net/run", fs.AzureFileSystem, "box/run"),
        ("file:///share/run", fs.LocalFileSystem, "/share/run"),
    ],
)
def test_the_scheme_of_an_address_says_what_store_it_is(url: str, kind: type, place: str) -> None:
    store, found = open_store(url)
    assert (type(store), found) == (kind, place)
    assert make_spec(f"compute.mirror={url}").compute.mirror == url


@pytest.mark.parametrize("url", ["ftp://host/run", "abfs://box/run", "bucket/run", "file://run"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with raises("mirror.address", url=url):
        open_store(url)
    with pytest.raises(SpecError, match=r"compute\.mirror"):
        make_spec(f"compute.mirror={url}")


@pytest.mark.parametrize(
    "said",
    [
        "AWS Error ACCESS_DENIED during HeadBucket operation: No response body.",
        "google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access token",
        "Unknown error: N5Azure4Core11Credentials23AuthenticationExceptionE: Failed to get token",
    ],
)
def test_credentials_that_are_refused_are_not_tried_again(
    store: Store, tmp_path: Path, said: str
) -> None:
    pauses: list[float] = []
    refusing = mirror(store, begun(tmp_path / "here"), sleep=pauses.append)
    store.message, store.away = said, True
    with raises("mirror.credentials", variables=CREDENTIALS["s3"]):
        refusing.pull("k")
    assert pauses == []


SECRET = "not-a-real-secret-6f1d"


@pytest.fixture(scope="module")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that speaks S3, with a bucket."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("needs moto and its server: pip install moto flask flask-cors")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> fs.FileSystem:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    host = s3_endpoint.removeprefix("http://")
    made = fs.S3FileSystem(
        scheme="http", endpoint_override=host, region="us-east-1", allow_bucket_creation=True
    )
    made.create_dir("sweeps")
    return made


def undisturbed(spec: SweepSpec, root: Path) -> dict[tuple[str, int], TrialRecord]:
    return {
        record.key: record.comparable()
        for task in make_tasks(make_plan(spec), spec, str, device="cpu")
        for record in run_trajectory(task, RunFolder(root).trial(task.trajectory_id))
    }


def stays(tasks: Sequence[TrajectoryTask], storage_of: Storages, done: Keys) -> Records:
    """A trial that is still on its way, after its first record, when its machine goes away."""
    yield from islice(run_pack(tasks, storage_of, done), 1)
    time.sleep(600)


@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests", "no_gpu")
def test_an_unfinished_path_goes_on_elsewhere_from_its_checkpoint(
    s3: fs.FileSystem, tiny_world: World, tmp_path: Path
) -> None:
    overrides = [
        "compute.adapters_per_trial=1",
        "compute.mirror=s3://sweeps/spot",
        "compute.mirror_checkpoints=true",
    ]
    spec = parse_spec(spec_text(tiny_world), overrides=overrides)
    expected = undisturbed(spec, tmp_path / "undisturbed")

    seen: list[str] = []

    def preempted(record: TrialRecord) -> None:
        if record.role == "candidate":
            seen.append(record.trajectory_id)
            raise SweeperError("the machine goes away")

    with pytest.raises(SweeperError, match="the machine goes away"):
        callbacks = SweepCallbacks(on_record=preempted)
        run_sweep(spec, tmp_path / "first", callbacks=callbacks, run=stays)
    (tmp_path / "first").rename(tmp_path / "gone")
    left = {path.parent.name for path in (tmp_path / "gone").rglob("checkpoint.safetensors")}
    run_sweep(spec, tmp_path / "second")
    second = RunFolder(tmp_path / "second")
    begun_at = {
        trial: next(
            line.fields["step"]
            for line in LogReader(second.trial(trial)).new_lines()
            if line.event == "start"
        )
        for trial in second.trials_with_logs()
    }
    resumed = {trial for trial, step in begun_at.items() if step > 0}
    assert set(seen) <= resumed <= left
    records = read_records(second.records).records
    assert {record.key: record.comparable() for record in records} == expected
    selector = fs.FileSelector("sweeps/spot", recursive=True)
    assert not [item.path for item in s3.get_file_info(selector) if "checkpoint" in item.path]


@pytest.mark.slow
def test_a_sweep_goes_on_elsewhere_from_an_s3_server(
    s3: fs.FileSystem, tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(__file__)
    monkeypatch.setenv(
        "PYTHONPATH",
        f"{here.parents[2]}:{here.parents[1]}:{here.parent}",
    )
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    overrides = ["compute.adapters_per_trial=1", "compute.mirror=s3://sweeps/team/tiny"]
    spec = parse_spec(spec_text(tiny_world), overrides=overrides)
    expected = undisturbed(spec, tmp_path / "undisturbed")
    seen: list[TrialRecord] = []

    def preempted(record: TrialRecord) -> None:
        seen.append(record)
        if len(seen) == 5:
            raise SweeperError("the machine goes away")

    with pytest.raises(SweeperError, match="the machine goes away"):
        run_sweep(spec, tmp_path / "first", callbacks=SweepCallbacks(on_record=preempted))
    first = (tmp_path / "first" / "records.jsonl").read_bytes()
    with s3.open_input_stream("sweeps/team/tiny/records.jsonl") as file:
        assert file.read() == first
    (tmp_path / "first").rename(tmp_path / "gone")
    more: list[TrialRecord] = []
    ended = run_sweep(spec, tmp_path / "second", callbacks=SweepCallbacks(on_record=more.append))
    second = RunFolder(tmp_path / "second")
    records = read_records(second.records).records
    assert ended.completed and second.records.read_bytes().startswith(first)
    assert len(more) == len(records) - first.count(b"\n") < len(records)
    assert {record.key: record.comparable() for record in records} == expected
    none: list[TrialRecord] = []
    run_sweep(spec, tmp_path / "third", callbacks=SweepCallbacks(on_record=none.append))
    third = RunFolder(tmp_path / "third")
    assert none == [] and third.records.read_bytes() == second.records.read_bytes()
    names = {path.name for path in second.generations.iterdir()}
    assert names == {path.name for path in third.generations.iterdir()} and len(names) == 14
    for root in ("gone", "second", "third"):
        for path in (tmp_path / root).rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


def test_an_s3_server_that_refuses_the_credentials_is_not_asked_again(
    s3: fs.FileSystem, s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unchecked_requests(number: str) -> None:
        url = f"{s3_endpoint}/moto-api/reset-auth"
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, number.encode(), headers))

    here = begun(tmp_path / "here")
    unchecked_requests("0")
    try:
        with raises("mirror.credentials"):
            Mirror(here, "s3://sweeps/secret/run").pull("k")  # At once, not after a minute.
    finally:
        unchecked_requests("inf")
    assert Mirror(here, "s3://sweeps/secret/run", policy=AT_ONCE).pull("k") == 0


def test_an_s3_server_that_ends_is_missed_and_said(
    s3: fs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = begun(tmp_path / "here")
    add(here, RECORDS[:2])
    sending = Mirror(here, "s3://sweeps/other/run", policy=AT_ONCE)
    assert sending.pull("k") == 0 and sending.push() > 2 and sending.push() == 0
    back = RunFolder(tmp_path / "back")
    back.create()
    Mirror(back, "s3://sweeps/other/run").pull("k")
    assert contents(back.root) == contents(here.root)
    with raises("mirror.no_bucket", bucket="nowhere"):
        Mirror(here, "s3://nowhere/run", policy=AT_ONCE).pull("k")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert open_store("s3://sweeps/x")[1] == "sweeps/x"
    with raises("mirror.unreachable", url="s3://sweeps/other/run"):
        Mirror(back, "s3://sweeps/other/run", policy=AT_ONCE).pull("k")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
