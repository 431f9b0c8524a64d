"""QLoRA against LoRA on the miniature: losses, what the readouts score, and the bytes of the base.

One path of 50 steps per variant, the same rows in the same order from the same start; read at its end.

    python benchmarks/qlora.py [--out benchmarks/results/qlora.json]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kept import keep
from safetensors.torch import load_file

from sweeper.data.sources import resolve
from sweeper.memory import base_bytes, read_shape
from sweeper.model.load import resident_model
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import parse_spec
from sweeper.spec.load import find_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_trajectory

STEPS = 50
SPACE = (
    f"space.max_steps={STEPS}",
    "space.batch_size=16",
    "space.average=raw",
    "space.learning_rate=2.0e-3",
    "model.dtype=mixed_bf16",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "LoRA": (),
    "QLoRA": ("tuning.method=qlora",),
    "QLoRA, scored unquantized": (
        "tuning.method=qlora",
        "evaluation.base_weights=unquantized",
    ),
    "QLoRA, adamw_8bit": ("tuning.method=qlora", "space.optim=adamw_8bit"),
}
METRICS = ("unsafe_rate", "over_refusal_rate", "rouge_l", "heldout_loss")


class Variant(NamedTuple):
    """A variant: training losses at its first and over its last ten steps, metrics, bytes of the base."""

    name: str
    first_loss: float
    last_loss: float
    from_lora: float
    metrics: dict[str, Any]
    untouched: dict[str, Any]
    base_bytes: int
    linear_bits: float


def tasks_of(overrides: tuple[str, ...]) -> dict[str, TrajectoryTask]:
    """The trained path and the untouched model of a variant."""
    text = find_spec("miniature").read_text(encoding="utf-8")
    spec = parse_spec(text, overrides=[*SPACE, *overrides])
    tasks = make_tasks(make_plan(spec), spec, resolve, device="cpu")
    return {task.readouts[0].role: task for task in tasks}


def held_bytes(task: TrajectoryTask) -> int:
    """Bytes of the base model's tensors as they lie in memory."""
    model = resident_model(task.model, torch.device("cpu"), quantized=task.tuning.quantized)
    total = 0
    for parameter in model.parameters():
        state: Any = getattr(parameter, "quant_state", None)
        parts = [parameter]
        if state is not None:
            parts += [
                state.absmax,
                state.code,
                state.offset,
                state.state2.absmax,
                state.state2.code,
            ]
        total += sum(part.nbytes for part in parts)
    return total


def _metrics(record: TrialRecord) -> dict[str, Any]:
    found = {name: record.metrics[name] for name in METRICS}
    return {name: {"value": m.value, "n": m.n, "k": m.k} for name, m in found.items()}


def measured(name: str, root: Path, lora: list[float]) -> tuple[Variant, list[float]]:
    """Train and read one variant; `lora` are the losses to compare with."""
    tasks = tasks_of(VARIANTS[name])
    task, base = tasks["candidate"], tasks["base"]
    storage = TrialStorage(root / name, task.trajectory_id)
    (record,) = run_trajectory(task, storage)
    (start,) = run_trajectory(base, TrialStorage(root / name, base.trajectory_id))
    assert {record.status, start.status} == {"complete"}
    losses = load_file(storage.checkpoint)["losses"].tolist()
    found = held_bytes(task)
    shape = read_shape(task.model.path)
    assert found == base_bytes(shape, task.tuning, 2)
    linear = sum(inputs * outputs for inputs, outputs in shape.linear_layers.values())
    rest = 2 * (shape.parameters - shape.layers * linear)
    return Variant(
        name,
        losses[0],
        sum(losses[-10:]) / 10,
        max(abs(a - b) for a, b in zip(losses, lora or losses, strict=True)),
        _metrics(record),
        _metrics(start),
        found,
        8 * (found - rest) / (shape.layers * linear),
    ), losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="also write the outcomes as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Variant] = []
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in VARIANTS:
            variant, own = measured(name, Path(folder), losses)
            losses = losses or own
            found.append(variant)
            said = ", ".join(f"{k} {v['value']:.4g}" for k, v in variant.metrics.items())
            print(
                f"{name}: loss {variant.first_loss:.4f} to {variant.last_loss:.4f}, at most "
                f"{variant.from_lora:.4f} from LoRA's; {said}; base {variant.base_bytes} bytes"
            )
    if given.out is not None:
        keep(given.out, steps=STEPS, variants=[item._asdict() for item in found])


if __name__ == "__main__":
    main()
