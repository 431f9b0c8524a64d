"""Published models with their numbers of parameters, and what a small trial holds in memory."""

from typing import Any

from sweeper.memory import MemoryFacts, ModelShape
from sweeper.task import Tuning

PUBLISHED = {
    "Llama-2-7B": (ModelShape(32, 4096, 11008, 32, 32, 128, 32000), 6_738_415_616),
    "Llama-3.2-1B": (ModelShape(16, 2048, 8192, 32, 8, 64, 128256, tied=True), 1_235_814_400),
    "Llama-3.2-3B": (ModelShape(28, 3072, 8192, 24, 8, 128, 128256, tied=True), 3_212_749_824),
    "Llama-3.1-8B": (ModelShape(32, 4096, 14336, 32, 8, 128, 128256), 8_030_261_248),
    "Llama-3.1-70B": (ModelShape(80, 8192, 28672, 64, 8, 128, 128256), 70_553_706_496),
}


def facts(**changes: Any) -> MemoryFacts:
    given: dict[str, Any] = {
        "shape": ModelShape(2, 8, 16, 2, 1, 4, 10),
        "tuning": Tuning("full"),
        "paths": 1,
        "dtype": "float32",
        "device": "cuda",
        "shadows": 2,
        "interpolates": True,
        "forks": False,
        "train_rows": 3,
        "train_length": 5,
        "evaluation_rows": 2,
        "heldout_length": 6,
        "generation_length": 7,
    }
    return MemoryFacts(**{**given, **changes})
