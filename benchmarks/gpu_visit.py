"""One visit to a machine with a GPU, ten minutes at most: bits, speed and memory of what a trial does.

Llamas of published shapes with random weights, bfloat16, the rows of the miniature. Each cell is
`run_pack`, as a worker calls it, without Ray; no cell starts after `--minutes`. Of random weights the texts
mean nothing: speeds and bits are what is read from here.

    python benchmarks/gpu_visit.py --out benchmarks/results/gpu_visit.json     # on a GPU
    python benchmarks/gpu_visit.py --smallest                                  # tiny, anywhere
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kept import keep
from parts import trainer_run
from transformers import LlamaConfig, LlamaForCausalLM

from sweeper.data.sources import resolve
from sweeper.errors import SweeperError
from sweeper.memory import GIB, train_flops
from sweeper.memory.shape import read_shape
from sweeper.planning import make_plan, make_tasks
from sweeper.spec import load_spec
from sweeper.store.folder import TrialStorage
from sweeper.store.records import TrialRecord
from sweeper.task import TrajectoryTask
from sweeper.trial.run import run_pack

SHAPES: dict[str, dict[str, Any]] = {
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    },
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "tie_word_embeddings": True,
    },
}
"""SmolLM2-135M, Llama-3.2-1B and Llama-3.1-8B, from the config.json of each; the last is for tests."""


class Size(NamedTuple):
    """How much a visit does: the shapes, the steps of a path, the paths of packs, readouts at once."""

    shapes: tuple[str, ...]
    steps: int
    packs: tuple[int, ...]
    readouts: tuple[int, ...]


WHOLE = Size(("135M", "1B", "8B"), 20, (1, 2, 4, 8, 16), (1, 4, 16, 64))
SMALLEST = Size(("tiny",), 2, (1, 2), (1, 3))


class Cell(NamedTuple):
    """One cell of a visit: what ran, and what was measured of it."""

    name: str
    measured: dict[str, Any]


class Visit:
    """The cells of one model on one device.

    Args:
        shape: A name in `SHAPES`.
        folder: Where the model and the trials are written.
        device: Where everything runs.
        size: How much to do.
    """

    def __init__(self, shape: str, folder: Path, device: torch.device, size: Size) -> None:
        self._folder, self._device, self._size = folder, device, size
        self._model = make_model(shape, folder / "model", device)
        self._runs = 0
        self._dtype = "bfloat16" if device.type == "cuda" else "float32"

    def cells(self, peak: float) -> Iterator[Callable[[], Cell]]:
        """The cells, to be called one after the other; `peak` is the measured peak in FLOP/s."""
        yield self._bits
        yield partial(self._trainer, peak)
        for paths in self._size.packs:
            yield partial(self._pack, paths, peak)
        for readouts in self._size.readouts:
            yield partial(self._scoring, readouts)
        yield self._qlora

    def _bits(self) -> Cell:
        """Whether a path gives the same bits again, and in a pack of two."""
        once, again = self._run(1)[0], self._run(1)[0]
        packed = self._run(2)[0]
        digests = [_digest(records[0]) for records in (once, again, packed)]
        return Cell(
            "bits", {"again": digests[0] == digests[1], "in a pack": digests[0] == digests[2]}
        )

    def _trainer(self, peak: float) -> Cell:
        """The training loop of one path against `transformers.Trainer`."""
        (task,) = self._tasks(1)
        with tempfile.TemporaryDirectory() as scratch:
            seconds, _ = trainer_run(task, self._size.steps, scratch)
        records, _ = self._run(1)
        tokens = records[0].provenance["tokens"]["trained"]
        speeds = {"trainer": tokens / seconds, "sweeper": _trained_per_second(records)}
        shares = {f"{name} share of peak": self._share(s, peak) for name, s in speeds.items()}
        return Cell("trainer, tokens/s", speeds | shares)

    def _pack(self, many: int, peak: float) -> Cell:
        records, used = self._run(many)
        speed = _trained_per_second(records)
        measured = {"tokens/s": speed, "share of peak": self._share(speed, peak), **used}
        return Cell(f"pack of {many}", measured)

    def _scoring(self, many: int) -> Cell:
        """Readouts of one step, scored together: mixtures with the start."""
        weights = [round(number / many, 4) for number in range(1, many)]
        mixed = [f"{{kind: interpolate, weight: {weight}}}" for weight in weights]
        records, used = self._run(1, f"space.average={{values: [raw, {', '.join(mixed)}]}}")
        seconds = sum(item.provenance["seconds"]["evaluate"] for item in records)
        generated = sum(item.provenance["tokens"]["generated"] for item in records)
        measured = {"seconds per readout": seconds / many, "tokens/s": generated / seconds, **used}
        return Cell(f"scoring {many} readouts", measured)

    def _qlora(self) -> Cell:
        records, used = self._run(1, "tuning.method=qlora")
        return Cell("qlora", {"tokens/s": _trained_per_second(records), **used})

    def _share(self, tokens_per_second: float, peak: float) -> float:
        (task,) = self._tasks(1)
        shape = read_shape(task.model.path)
        return tokens_per_second * train_flops(shape, task.tuning) / peak

    def _tasks(self, many: int, *overrides: str) -> list[TrajectoryTask]:
        """Paths that differ in the learning rate alone."""
        rates = ", ".join(f"{1e-5 * (1 + number / 100):.8f}" for number in range(many))
        spec = load_spec(
            "miniature",
            [
                f"model.path={json.dumps(str(self._model))}",
                f"model.dtype={self._dtype}",
                f"space.learning_rate={{values: [{rates}]}}",
                "space.batch_size=4",
                f"space.max_steps={self._size.steps}",
                "space.average=raw",
                "decide=false",
                *overrides,
            ],
        )
        tasks = make_tasks(make_plan(spec), spec, resolve, self._device.type)
        return [task for task in tasks if task.readouts[0].role == "candidate"]

    def _run(self, many: int, *overrides: str) -> tuple[list[TrialRecord], dict[str, float]]:
        """The records of some paths trained together, and the memory that they took.

        Raises:
            RuntimeError: one of them failed.
        """
        self._runs += 1
        root = self._folder / f"run-{self._runs}"
        tasks = self._tasks(many, *overrides)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        records = [
            record
            for part in run_pack(tasks, lambda trajectory_id: TrialStorage(root, trajectory_id))
            for record in part
        ]
        shutil.rmtree(root)
        for record in records:
            if record.status != "complete":
                raise RuntimeError(f"{record.config_id} is {record.status}: {record.error}")
        used = {}
        if self._device.type == "cuda":
            used["peak GiB"] = torch.cuda.max_memory_allocated(self._device) / GIB
        return [item for item in records if item.role == "candidate"], used


def make_model(shape: str, folder: Path, device: torch.device) -> Path:
    """A model folder of this shape with random weights and the tokenizer of the miniature."""
    folder.mkdir(parents=True)
    for source in Path(resolve("builtin:miniature/model")).iterdir():
        if source.suffix in {".json", ".jinja"} and source.name != "config.json":
            shutil.copy(source, folder)
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=2048)
    with device:
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    kept = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.config, name, kept.get(name))
    generation = (folder / "generation_config.json").read_bytes()
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(generation)
    return folder


def matrix_peak(device: torch.device) -> float:
    """FLOP/s of the fastest of ten products of two square matrices: bf16 on a GPU, else fp32."""
    cuda = device.type == "cuda"
    side, dtype = (8192, torch.bfloat16) if cuda else (512, torch.float32)
    left = torch.randn(side, side, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        left @ left
        if cuda:
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def _trained_per_second(records: Sequence[TrialRecord]) -> float:
    """Tokens per second of a trial: each path of a pack is charged its share of the seconds."""
    first = records[0].provenance
    return float(first["tokens"]["trained"]) / float(first["seconds"]["train"])


def _digest(record: TrialRecord) -> tuple[Any, ...]:
    return (record.provenance["weights_sha256"], record.metrics)


def visit(size: Size, device: torch.device, minutes: float) -> dict[str, Any]:
    """All cells of some shapes; a cell that fails says why, and those without time are named."""
    ends = time.monotonic() + 60 * minutes
    peak = matrix_peak(device)
    found: dict[str, Any] = {"peak TFLOP/s": peak / 1e12}
    for shape in size.shapes:
        cells = found.setdefault(shape, {})
        with tempfile.TemporaryDirectory(prefix="gpu-visit-") as folder:
            for number, cell in enumerate(Visit(shape, Path(folder), device, size).cells(peak), 1):
                if time.monotonic() > ends:
                    cells["not reached"] = {"from": f"cell {number} on"}
                    break
                try:
                    name, measured = cell()
                except (ImportError, RuntimeError, SweeperError) as error:
                    name, measured = f"cell {number} failed", {"why": str(error)[:300]}
                cells[name] = measured
                print(f"{shape}: {name}: {measured}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--smallest", action="store_true", help="tiny, on a CPU")
    parser.add_argument("--minutes", type=float, default=9.0, help="no cell starts later")
    parser.add_argument("--out", type=Path, help="also write the outcome as JSON")
    given = parser.parse_args()
    size, device = (SMALLEST, "cpu") if given.smallest else (WHOLE, "cuda")
    found = visit(size, torch.device(device), given.minutes)
    if given.out is not None:
        keep(given.out, **found)


if __name__ == "__main__":
    main()
