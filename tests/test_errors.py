"""Errors cross process borders and keep what they say."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.snapshot import Snapshot

from sweeper import errors
from sweeper.errors import SpecError, SweeperError, error_codes

SOURCE = Path(errors.__file__).parent

SAMPLES: dict[str, SweeperError] = {
    "SweeperError": SweeperError("a"),
    "SpecError": SpecError("x.yaml", ("name: missing", "seeds: found []")),
    "DataError": errors.DataError(
        "rows.jsonl:3: malformed", code="data.malformed", path=Path("rows.jsonl"), line=3
    ),
    "ImportMapError": errors.ImportMapError("no column `lr`"),
    "ModelError": errors.ModelError("no weights"),
    "DeviceError": errors.DeviceError("needs 90.0 GiB, the GPU has 79.6 GiB"),
    "DiskQuotaError": errors.DiskQuotaError("3 of 2 GiB"),
    "MirrorError": errors.MirrorError("holds another run"),
    "RunFolderError": errors.RunFolderError("in use"),
    "RecordError": errors.RecordError("torn"),
    "JudgeError": errors.JudgeError("no answer"),
    "DiskFullError": errors.DiskFullError("run/records.jsonl", 4096, 12),
    "UnreachableError": errors.UnreachableError("run/records.jsonl", 300.0, "Stale file handle"),
    "MissingExtraError": errors.MissingExtraError("install"),
    "RankLostError": errors.RankLostError(1, -9, "rank-1.log"),
    "ClusterTokenError": errors.ClusterTokenError("10.0.0.1:6379", "no token"),
    "LaunchError": errors.LaunchError("--image is needed"),
    "ExportError": errors.ExportError("a setting the trainer cannot have"),
    "StorageError": errors.StorageError("cannot be used"),
    "TrainingDivergedError": errors.TrainingDivergedError(7, float("inf"), 2.5),
}


def classes() -> set[str]:
    found, waiting = set(), [SweeperError]
    while waiting:
        item = waiting.pop()
        waiting += item.__subclasses__()
        if item.__module__.startswith("sweeper"):
            found.add(item.__name__)
    return found


def test_every_error_class_has_a_sample_here() -> None:
    assert classes() == set(SAMPLES)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_error_survives_pickling_with_class_message_and_fields(name: str) -> None:
    error = SAMPLES[name]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_every_error_is_caught_as_a_sweeper_error(name: str) -> None:
    assert isinstance(SAMPLES[name], SweeperError)


def test_codes_are_unique_begin_with_that_of_their_class_and_are_explained() -> None:
    codes = error_codes()
    names = [item.code for item in codes]
    assert sorted(set(names)) == sorted(names)
    assert {item.error.__name__ for item in codes} == set(SAMPLES)
    for item in codes:
        assert item.code.partition(".")[0] == item.error.code.partition(".")[0]
        assert item.description and "\n" not in item.description
        assert item.code in {*item.error.faults, item.error.code}


def raised_codes() -> Iterator[str]:
    """Every `code="..."` in the source; of the hub, whose class is chosen there, with both classes."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code":
                code = (
                    ast.literal_eval(node.value) if isinstance(node.value, ast.Constant) else None
                )
                if isinstance(code, str):
                    yield from (code,) if "." in code else (f"data.{code}", f"model.{code}")


def test_every_fault_is_raised_somewhere_and_every_code_that_is_raised_is_listed() -> None:
    listed = {code for item in error_codes() for code in item.error.faults}
    assert set(raised_codes()) == listed


def test_an_error_has_the_code_of_its_class_or_its_fault_and_says_its_values() -> None:
    assert errors.DataError("no").code == "data"
    assert SweeperError("no").code == "usage"
    error = SAMPLES["DataError"]
    assert (error.code, error.values) == ("data.malformed", {"path": "rows.jsonl", "line": 3})
    assert error.as_dict() == {
        "code": "data.malformed",
        "message": "rows.jsonl:3: malformed",
        "values": error.values,
    }
    assert SAMPLES["DiskFullError"].values == {
        "path": "run/records.jsonl",
        "needed_bytes": 4096,
        "free_bytes": 12,
    }


def test_a_spec_error_carries_the_key_of_every_problem() -> None:
    two = SpecError("x.yaml", ("space.lora_r: missing", "seeds: found []: at least 1"))
    assert two.keys == ("space.lora_r", "seeds")
    assert two.values["source"] == "x.yaml"


def test_the_wording_of_every_class(snapshot: Snapshot) -> None:
    texts = [f"{name} [{error.code}]\n{error}\n" for name, error in sorted(SAMPLES.items())]
    snapshot("errors", "\n".join(texts))
