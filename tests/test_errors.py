"""Errors cross process borders and keep what they say."""

import pickle

import pytest

from sweeper import errors
from sweeper.errors import SpecError, SweeperError, TrainingDivergedError

SAMPLES: dict[str, SweeperError] = {
    "SweeperError": SweeperError("a"),
    "SpecError": SpecError("x.yaml", ("name: missing", "seeds: found []")),
    "DataError": errors.DataError("rows.jsonl:3: malformed"),
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
    "TrainingDivergedError": TrainingDivergedError(7, float("inf"), 2.5),
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


def test_a_spec_error_lists_every_problem_and_counts_them() -> None:
    two = SpecError("x.yaml", ("name: missing", "seeds: found []"))
    assert str(two) == "x.yaml: 2 problems\n  - name: missing\n  - seeds: found []"
    assert str(SpecError("y", ("z",))) == "y: 1 problem\n  - z"


def test_a_diverged_training_names_loss_step_and_remedies() -> None:
    message = str(TrainingDivergedError(7, float("inf"), 2.5))
    assert "loss is inf" in message
    assert "gradient norm 2.5 at optimizer step 7" in message
    assert "lower learning_rate" in message
