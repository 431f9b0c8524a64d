"""The choice measured again: what is laid out, how it is read, and the whole way through Ray."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from support.factories import base_record, make_record, make_spec
from support.world import World

from sweeper.analysis import Front, Policy, Recommendation, find_front, recommend
from sweeper.cli.app import _run
from sweeper.data.prompt_hash import prompt_split_of
from sweeper.errors import RunFolderError, SpecError, SweeperError
from sweeper.planning import make_plan, trajectory_axes
from sweeper.search.rounds import already_suggested, append_round
from sweeper.spec import SweepSpec, load_spec, spec_hash
from sweeper.stats import difference_lower_bound
from sweeper.store.folder import RunFolder
from sweeper.store.records import RecordWriter, TrialRecord, read_records
from sweeper.sweep.confirm import HOLDS, Confirmation, confirmation, prepare, shrinkages
from sweeper.sweep.run import SweepOptions, run_sweep
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory

SEARCHED = (
    "evaluation.harmful={path: harmful.csv, prompt_split: search}",
    "evaluation.harmless={path: harmless.csv, prompt_split: all}",
)

RECORDS = [
    base_record(),
    make_record(identity="default", role="default", learning_rate=2e-5, utility=0.5),
    make_record(identity="raw", average="raw", utility=0.9, unsafe=(40, 256)),
    make_record(identity="ema", average="ema(0.95)", utility=0.88, unsafe=(2, 256)),
    make_record(identity="next", average="ema(0.99)", utility=0.85, unsafe=(1, 256)),
]


def laid_out(
    *overrides: str, seeds: int = 2, top: int = 1, policy: Policy | None = None
) -> tuple[Confirmation, Front, SweepSpec, Recommendation]:
    spec = make_spec(*overrides)
    front = find_front(RECORDS, spec)
    found = recommend(front, spec, policy or Policy())
    made = confirmation(RunFolder(Path("run")), spec, front, found, seeds, top)
    return made, front, spec, found


def test_the_half_that_was_left_out_is_used_under_old_and_new_seeds() -> None:
    made, _, spec, _ = laid_out(*SEARCHED)
    assert [suite.prompt_split for suite in made.spec.evaluation.harmful] == ["confirm"]
    assert [suite.prompt_split for suite in made.spec.evaluation.harmless] == ["all"]
    assert made.spec.seeds == (0, 1, 2)
    assert made.new_prompts
    assert made.notes[0] == "prompts of harmless.csv are the same (`prompt_split: all`)"
    assert made.folder.root.parent == Path("run/confirm")
    rest = {"evaluation", "seeds"}
    assert made.spec.model_dump(exclude=rest) == spec.model_dump(exclude=rest)
    back = laid_out("evaluation.harmful={path: h.csv, prompt_split: confirm}")[0]
    assert [suite.prompt_split for suite in back.spec.evaluation.harmful] == ["search"]


def test_where_every_prompt_was_used_only_seeds_are_new_and_that_is_said() -> None:
    made, *_ = laid_out("seeds=[0]")
    assert made.spec.seeds == (1, 2)
    assert not made.new_prompts
    assert "the prompts are the same, and only seeds 1, 2 are new" in made.notes[0]
    with pytest.raises(SweeperError, match="only seeds can be new"):
        laid_out(seeds=0)
    assert laid_out(*SEARCHED, seeds=0)[0].spec.seeds == (0,)


def test_the_chosen_few_come_with_their_controls_once_each() -> None:
    made, *_ = laid_out(top=2)
    assert dict(made.names) == {
        "ema": "recommended",
        "next": "number 2",
        "raw": "without averaging",
        "default": "trainers' defaults",
        RECORDS[0].config_id: "untouched model",
    }
    assert laid_out(top=1)[0].folder.root != made.folder.root
    assert laid_out(top=2)[0].folder.root == made.folder.root
    assert laid_out(top=2, seeds=1)[0].folder.root != made.folder.root


def again(unsafe: dict[str, tuple[int, int]], seeds: Sequence[int]) -> list[TrialRecord]:
    roles = {"default": "default", RECORDS[0].config_id: "base"}
    config = {item.config_id: item.config for item in RECORDS}
    utility = {item.config_id: item.metrics["rouge_l"].value for item in RECORDS}
    return [
        make_record(
            identity=key,
            role=roles.get(key, "candidate"),
            config=config[key],
            utility=utility[key] - 0.01 * seed,
            unsafe=k,
            seed=seed,
        )
        for key, k in unsafe.items()
        for seed in seeds
    ]


def test_shrinkage_is_between_independent_prompts_and_of_new_seeds() -> None:
    made, front, spec, _ = laid_out(*SEARCHED)
    base = RECORDS[0].config_id
    records = again(
        {"ema": (12, 120), "raw": (19, 120), "default": (0, 120), base: (0, 120)}, (0, 1, 2)
    )
    found = {item.name: item for item in shrinkages(front, spec, records, made)}
    chosen = found["recommended"]
    assert chosen.unsafe is not None and chosen.unsafe.interval is not None
    assert chosen.unsafe.difference == pytest.approx(12 / 120 - 2 / 256)
    assert not chosen.unsafe.paired
    low = difference_lower_bound(12 / 120, 120, 2 / 256, 256, 0.975)
    assert chosen.unsafe.interval.low == pytest.approx(low)
    assert chosen.utility is not None
    assert chosen.utility.difference == pytest.approx(-0.015), "of seeds 1 and 2 alone"
    assert chosen.verdict.startswith("does not hold: unsafe_rate 12/120, 12/120, 12/120 = 10.0 %")
    assert found["trainers' defaults"].verdict == HOLDS
    assert found["untouched model"].verdict == "is the base model"
    unfinished = shrinkages(front, spec, records[:2], made)
    assert unfinished[0].verdict == "no record yet for seed 2"
    assert unfinished[1].verdict == "not measured yet"


def test_the_limit_of_the_policy_decides_what_holds() -> None:
    made, front, spec, _ = laid_out(*SEARCHED)
    base = RECORDS[0].config_id
    records = again({"ema": (12, 120), base: (0, 120)}, (0, 1, 2))
    loose = make_spec(*SEARCHED, "constraints=[{metric: unsafe_rate, max: 0.3}]")
    assert shrinkages(front, loose, records, made)[0].verdict == HOLDS
    assert shrinkages(front, spec, records, made)[0].verdict != HOLDS


def test_nothing_is_confirmed_where_nothing_was_chosen() -> None:
    with pytest.raises(SweeperError, match="nothing to confirm"):
        laid_out(policy=Policy("max-utility-at", limit=0.001))


def trained_here(most: int | None = None) -> Callable[..., bool]:
    """A driver without Ray: trains the first tasks in this process, one after the other."""

    def drive(
        rounds: Iterable[Sequence[TrajectoryTask]],
        spec: SweepSpec,
        folder: RunFolder,
        run: object,
        on_record: object,
        guard: Callable[[], None],
    ) -> bool:
        writer = RecordWriter(folder.records)
        tasks = [task for tasks in rounds for task in tasks]
        for task in tasks[:most]:
            for record in run_trajectory(task, folder.trial(task.trajectory_id)):
                writer.append(record)
        writer.close()
        return most is None or most >= len(tasks)

    return drive


@pytest.fixture
def searched(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[SweepSpec, Path]:
    """A finished run on one half of the harmful prompts, in which every rate is allowed."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    harmful = load_spec(str(path), ()).evaluation.harmful[0].path
    spec = load_spec(
        str(path),
        (
            f"evaluation.harmful={{path: {harmful}, prompt_split: search}}",
            "evaluation.utility_metrics=[heldout_loss]",
            "objectives=[heldout_loss, unsafe_rate]",
            "constraints=[{metric: unsafe_rate, max: 1.0}]",
            "space.learning_rate=4e-3",
        ),
    )
    with monkeypatch.context() as patch:
        patch.setattr("sweeper.sweep.run.drive", trained_here())
        run_sweep(spec, tmp_path / "run")
    return spec, tmp_path / "run"


@pytest.mark.slow
def test_the_choice_is_measured_again_through_ray_and_goes_on_after_an_interruption(
    searched: tuple[SweepSpec, Path],
    tiny_world: World,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec, run = searched
    before = (run / "records.jsonl").read_bytes()
    words = ["sweeper", "recommend", str(run), "--confirm", "--seeds", "1", "--top", "1", "--json"]
    monkeypatch.setattr("sys.argv", words)
    with monkeypatch.context() as patch:
        patch.setattr("sweeper.sweep.run.drive", trained_here(most=1))
        assert _run() == 130
    said = capsys.readouterr().err
    assert "interrupted: 1 of 6 records are in " in said
    assert f"{' '.join(words)}\n" in said  # The command that goes on.
    (folder,) = (run / "confirm").iterdir()
    begun = (folder / "records.jsonl").read_bytes()
    assert begun

    assert _run() == 0
    data = json.loads(capsys.readouterr().out)
    assert (run / "records.jsonl").read_bytes() == before
    assert (folder / "records.jsonl").read_bytes().startswith(begun)
    found = data["confirmation"]
    assert (found["run"], found["seeds"], found["new_prompts"]) == (str(folder), [0, 1], True)
    records = read_records(folder / "records.jsonl").records
    named = [item["config_id"] for item in found["configurations"]]
    assert named[0] == data["chosen"]["config_id"]
    assert {record.key for record in records} == {(key, s) for key in named for s in (0, 1)}

    prompts = [json.loads(line)["prompt"] for line in tiny_world.harmful.read_text().splitlines()]
    confirm = sum(prompt_split_of(prompt) == "confirm" for prompt in prompts)
    assert 0 < confirm < len(prompts)
    assert {record.metrics["unsafe_rate"].n for record in records} == {confirm}
    searching = {record.key: record for record in read_records(run / "records.jsonl").records}
    for record in records:
        if record.seed == 0:
            same = searching[record.key]
            assert record.provenance["weights_sha256"] == same.provenance["weights_sha256"]
            assert record.metrics["heldout_loss"] == same.metrics["heldout_loss"]
            assert same.metrics["unsafe_rate"].n == len(prompts) - confirm
    assert found["confirmed"] is True

    info = json.loads((folder / "run.json").read_text())
    assert sorted(info["only"]) == sorted(named)
    other = load_spec(str(folder / "spec.yaml"), ())
    assert info["spec_hash"] == spec_hash(other) != spec_hash(spec)
    with pytest.raises(RunFolderError, match="a run of other configurations"):
        run_sweep(other, folder, SweepOptions(only=named[:1]))


def test_what_an_adaptive_search_asked_for_is_known_to_the_confirmation(
    tiny_spec_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_spec_text)
    rates = "space.learning_rate={low: 1e-3, high: 4e-3, log: true}"
    spec = load_spec(str(path), (rates, "search={method: optuna, n_trials: 4}"))
    others = {n: axis for n, axis in trajectory_axes(spec).items() if n != "learning_rate"}
    run = RunFolder(tmp_path / "run")
    run.create()
    append_round(run, ({"learning_rate": 0.00123, **{n: a.grid()[0] for n, a in others.items()}},))
    drawn = already_suggested(run)
    chosen = next(c for c in make_plan(spec, drawn).configurations if c.role == "candidate")
    with pytest.raises(SpecError, match="are not among"):
        make_plan(spec, only={chosen.config_id})

    asked: list[str] = []

    def drive(rounds: Iterable[Sequence[TrajectoryTask]], *rest: object) -> bool:
        asked.extend(r.config_id for tasks in rounds for task in tasks for r in task.readouts)
        return True

    monkeypatch.setattr("sweeper.sweep.run.drive", drive)
    again = spec.model_copy(update={"seeds": (7,)})
    made = Confirmation(again, {chosen.config_id: ""}, RunFolder(run.confirm / "a"), False, ())
    prepare(made, run)
    ended = run_sweep(again, made.folder.root, SweepOptions(only=made.names))
    assert asked == [chosen.config_id]
    assert ended.completed and ended.plan.keys() == {(chosen.config_id, 7)}


def test_other_input_files_than_those_of_the_sweep_are_refused(
    searched: tuple[SweepSpec, Path], tiny_world: World, tmp_path: Path
) -> None:
    spec, run = searched
    info = json.loads((run / "run.json").read_text())
    only = [item.config_id for item in make_plan(spec).configurations[:1]]
    info["inputs"][str(tiny_world.train)] = "0" * 64
    (run / "run.json").write_text(json.dumps(info))
    with pytest.raises(
        RunFolderError, match=r"started with other contents of .*train\.jsonl; restore"
    ):
        run_sweep(spec, tmp_path / "again", SweepOptions(only=only, part_of=RunFolder(run)))
