"""On how many GPUs a trial fits, by the memory model: a table of the documentation.

`python benchmarks/memory_table.py` prints it.
"""

from dataclasses import replace
from typing import NamedTuple

from sweeper.memory import USABLE_SHARE, MemoryFacts, ModelShape, fitting_rows, memory
from sweeper.task import ADAMW, ALL_LINEAR, Tuning

SHAPES = {
    "1B": ModelShape(16, 2048, 8192, 32, 8, 64, 128256, tied=True),
    "3B": ModelShape(28, 3072, 8192, 24, 8, 128, 128256, tied=True),
    "7B": ModelShape(32, 4096, 11008, 32, 32, 128, 32000),
    "8B": ModelShape(32, 4096, 14336, 32, 8, 128, 128256),
    "70B": ModelShape(80, 8192, 28672, 64, 8, 128, 128256),
}
"""Llama-3.2-1B and 3B, Llama-2-7B, Llama-3.1-8B and 70B, from the config.json of each."""

TUNINGS = {
    "LoRA": Tuning("lora", lora_r=16, lora_target_modules=(ALL_LINEAR,)),
    "QLoRA": Tuning("qlora", lora_r=16, lora_target_modules=(ALL_LINEAR,)),
    "full": Tuning("full"),
}

GPU_BYTES = {"24 GB": 24e9, "40 GB": 40e9, "80 GB": 80e9, "141 GB": 141e9}

COUNTS = (1, 2, 4, 8, 16)
"""How many GPUs one trial may have: a whole node, or two."""

BATCH_SIZE = 32


class Cell(NamedTuple):
    """How many GPUs a trial needs at least, its rows per micro-batch there, and its peak per GPU."""

    gpus: int
    rows: int
    peak_bytes: int


def facts_of(shape: ModelShape, tuning: Tuning, checkpointing: bool, processes: int) -> MemoryFacts:
    """One trial in mixed_bf16: 512 tokens, one shadow, held-out loss, 32 prompts of 256 + 128 tokens."""
    return MemoryFacts(
        shape=shape,
        tuning=tuning,
        paths=1,
        dtype="mixed_bf16",
        device="cuda",
        shadows=1,
        interpolates=False,
        forks=False,
        train_rows=1,
        train_length=512,
        evaluation_rows=32,
        heldout_length=512,
        generation_length=384,
        processes=processes,
        optim="paged_adamw_8bit" if tuning.quantized else ADAMW,
        gradient_checkpointing=checkpointing,
    )


def smallest(
    shape: ModelShape, tuning: Tuning, gpu_bytes: float, *, checkpointing: bool = False
) -> Cell | None:
    """The fewest GPUs whose usable memory holds a trial, or None where COUNTS do not suffice."""
    for gpus in COUNTS if not tuning.quantized else (1,):
        facts = facts_of(shape, tuning, checkpointing, gpus)
        most = -(-BATCH_SIZE // gpus)
        rows = fitting_rows(facts, most, 1, int(gpu_bytes))
        peak = memory(replace(facts, train_rows=rows)).peak_bytes
        if peak <= USABLE_SHARE * gpu_bytes:
            return Cell(gpus, rows, peak)
    return None


def shown(cell: Cell | None) -> str:
    """`GPUs (rows per micro-batch, GB at the peak)`."""
    if cell is None:
        return "-"
    rows = f"{cell.rows} row{'' if cell.rows == 1 else 's'}"
    return f"**{cell.gpus}** ({rows}, {cell.peak_bytes / 1e9:.0f} GB)"


def table() -> list[str]:
    """The lines of the table."""
    lines = [
        f"| model | tuning | {' | '.join(GPU_BYTES)} |",
        f"|---|---|{'---|' * len(GPU_BYTES)}",
    ]
    for size, shape in SHAPES.items():
        for name, tuning in TUNINGS.items():
            for checkpointing in (False, True):
                label = f"{name}, checkpointing" if checkpointing else name
                found = [
                    shown(smallest(shape, tuning, count, checkpointing=checkpointing))
                    for count in GPU_BYTES.values()
                ]
                lines.append(f"| {size} | {label} | {' | '.join(found)} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
