"""Tokens per second of training, and which share of the machine's measured matrix peak they are.

One path alone, packs of four and eight and full fine-tuning, on the miniature and, given its folder, on
SmolLM2-135M, with the rows of the miniature: fp32, batches of 4 rows, one thread. Seconds are CPU seconds,
which busy neighbours change little. FLOP are those that are needed: 4 per frozen weight and token, 6 per
trained one (`sweeper.memory.train_flops`), the output layer at targets only; no padding, no attention.
Beside them, the activations that autograd keeps, per token, and `sweeper.memory.activation_bytes`.

    python benchmarks/peak.py --smollm2 FOLDER --out benchmarks/results/peak.json
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kept import keep
from parts import Path as Paths
from parts import tasks_of

from sweeper.memory import activation_bytes, train_flops
from sweeper.model.logits import target_states
from sweeper.model.shape import model_shape
from sweeper.task import TrajectoryTask

BATCH = 4
SIDE = 2048
"""Rows and columns of the square matrices whose product gives the peak."""


class Speed(NamedTuple):
    """What some paths reach: `share` of the peak of one thread; bytes per token, padding included."""

    model: str
    tuning: str
    paths: int
    tokens_per_second: float
    gflops: float
    share: float
    over_solo: float
    activation_bytes: float
    activation_bytes_estimated: int


def matrix_peak(threads: int) -> float:
    """FLOP/s of the fastest of several fp32 products of two square matrices, all threads busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    left, right = torch.randn(2, SIDE, SIDE)
    seconds = []
    for _ in range(8):
        began = time.process_time()
        torch.mm(left, right)
        seconds.append((time.process_time() - began) / threads)
    torch.set_num_threads(before)
    return 2.0 * SIDE**3 / min(seconds)


def needed_flops(paths: Paths, steps: range) -> tuple[int, float]:
    """The tokens of some steps, over all paths, and the FLOP that they need."""
    shape, tuning = model_shape(paths.model), paths.tasks[0].tuning
    rows = [row for step in steps for row in paths.rows(step)]
    tokens = sum(len(row.prompt) + len(row.completion) for row in rows)
    targets = sum(len(row.completion) for row in rows)
    head = (6 if tuning.method == "full" else 4) * shape.vocabulary * shape.hidden
    flops = tokens * (train_flops(shape, tuning) - head) + targets * head
    return tokens * len(paths.tasks), flops * len(paths.tasks)


def kept_bytes(paths: Paths) -> float:
    """Bytes per token that autograd keeps of a forward pass up to the output layer."""
    paths.load()
    own = {value.untyped_storage().data_ptr() for value in paths.model.parameters()}
    found: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = paths.batches(0)[0]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = target_states(paths.model, batch)
    assert states.requires_grad
    return sum(found.values()) / batch.input_ids.numel()


def speeds(
    name: str, tasks: Sequence[TrajectoryTask], packs: Sequence[int], peak: float, turns: int
) -> list[Speed]:
    """What the paths alone and in packs reach; the fastest of some turns of two steps."""
    found: list[Speed] = []
    for many in packs:
        paths = Paths((list(tasks) * many)[:many])
        kept = kept_bytes(paths)
        paths.advance(1)
        best, solo = 0.0, found[0].tokens_per_second if found else 0.0
        for _ in range(turns):
            first = paths.walkers[0].step
            seconds = paths.advance(2, time.process_time)
            tokens, flops = needed_flops(paths, range(first, first + 2))
            if flops / seconds > best:
                best, speed = flops / seconds, tokens / seconds
        tuning = tasks[0].tuning
        expected = activation_bytes(model_shape(paths.model), tuning, "float32")
        over = speed / solo if solo else 1.0
        place = (name, tuning.method, many, speed, best / 1e9, best / peak, over, kept, expected)
        found.append(Speed(*place))
        print(found[-1], flush=True)
    return found


def measure(models: dict[str, list[str]], turns: dict[str, int]) -> dict[str, Any]:
    """All of it. `models`: name -> what is changed in the sweeps of the miniature."""
    torch.set_num_threads(1)
    peaks = {threads: matrix_peak(threads) for threads in (1, 2)}
    rows: list[Speed] = []
    for name, changes in models.items():
        for spec, packs in (("miniature", (1, 4, 8)), ("miniature_full", (1,))):
            tasks = [t for t in tasks_of(spec, changes) if t.optimizer.batch_size == BATCH]
            rows += speeds(name, tasks, packs, peaks[1], turns[name])
    gflops = {
        f"{threads} thread{'s' * (threads > 1)}": round(peak / 1e9, 1)
        for threads, peak in peaks.items()
    }
    return {"matrix_peak_gflops": gflops, "batch_size": BATCH, "rows": [r._asdict() for r in rows]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--smollm2", type=Path, help="a folder with SmolLM2-135M")
    parser.add_argument("--out", type=Path, help="also write the outcome as JSON")
    given = parser.parse_args()
    models: dict[str, list[str]] = {"miniature": []}
    if given.smollm2 is not None:
        models["SmolLM2-135M"] = [f"model.path={given.smollm2.resolve()}", "data.max_length=256"]
    found = measure(models, {"miniature": 12, "SmolLM2-135M": 1})
    if given.out is not None:
        keep(given.out, **found)


if __name__ == "__main__":
    main()
