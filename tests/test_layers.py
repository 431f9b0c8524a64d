"""Who may import whom, read from the source with `ast`; imports inside functions count too."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sweeper"

RANKS = {
    "errors": 0,
    "metrics": 0,
    "miniature": 1,
    "stats": 1,
    "task": 1,
    "keywords": 2,
    "memory": 2,
    "spec": 2,
    "store": 2,
    "data": 3,
    "launch": 3,
    "planning": 3,
    "trackers": 3,
    "analysis": 4,
    "model": 4,
    "judges": 5,
    "scoring": 5,
    "search": 5,
    "trial": 6,
    "estimate": 7,
    "sweep": 8,
    "importing": 9,
    "setup": 9,
    "export": 10,
    "report": 11,
    "runs": 12,
    "serve": 13,
    "cli": 14,
    "__main__": 15,
    "": 15,
}
"""The unit (a module or a package directly below `sweeper`) -> its rank; "" is `sweeper` itself.

Between packages only lower ranks are imported; inside a package any sibling, as long as there is no cycle.
"""

CLI = (
    "app",
    "commands",
    "completions",
    "control",
    "details",
    "examples",
    "importing",
    "interrupts",
    "judging",
    "launching",
    "listing",
    "logs",
    "machine",
    "options",
    "recommending",
    "results",
    "schema",
    "sweeps",
)

HEAVY = {
    "bitsandbytes": {"model/quantized.py", "trial/optimizers.py"},
    "datasets": {"scoring/harness.py", "data/datasets_package.py"},
    "jinja2": {
        "launch/templates.py",
        "report/page.py",
        "serve/pages.py",
        "data/chat_format.py",
        "scoring/harness.py",
    },
    "mlflow": {"trackers/to_mlflow.py"},
    "lm_eval": {"scoring/harness.py"},
    "optuna": {
        "importing/readers/optuna_study.py",
        "report/figures/importance.py",
        *(f"search/{name}.py" for name in ("live_study", "storages", "study", "suggest")),
    },
    "pandas": {f"runs/{name}.py" for name in ("frames", "plans", "responses", "results", "run")},
    "peft": {"model/adapters.py"},
    "plotly": {"runs/plots.py", "runs/results.py", "runs/run.py"}
    | {
        f"report/figures/{name}.py"
        for name in (
            "draw",
            "draw_bars",
            "draw_panels",
            "draw_parallel",
            "draw_training",
            "theme",
            "front",
            "fronts",
        )
    },
    "pyarrow": {"store/mirror.py", "store/object_store.py", "data/folders.py", "data/files.py"},
    "pydantic": {
        "importing/mapping.py",
        "runs/fields.py",
        "runs/outputs.py",
        "runs/recommend_output.py",
        "runs/command_outputs.py",
        "runs/decision_outputs.py",
    }
    | {
        f"spec/{name}.py"
        for name in (
            "axes",
            "blocks",
            "load",
            "models",
            "reference",
            "references",
            "results",
            "space",
        )
    },
    "ray": {
        "sweep/driver.py",
        "sweep/gpu_fit.py",
        "sweep/session.py",
        "sweep/trials.py",
        "sweep/waiting.py",
        "launch/ray_jobs.py",
        "setup/nodes.py",
    },
    "openai": {"judges/remote.py"},
    "requests": {"launch/ray_jobs.py"},
    "rich": {"runs/progress.py", "runs/terminal.py"}
    | {
        f"cli/{name}.py"
        for name in (
            "details",
            "fronts",
            "judging",
            "listing",
            "plan_tables",
            "recommending",
            "show",
        )
    },
    "rouge_score": {"scoring/similarity.py"},
    "sacrebleu": {"scoring/similarity.py"},
    "scipy": {
        "estimate/measured_rates.py",
        "search/suggest.py",
        "stats/distributions.py",
    },
    "starlette": {"serve/app.py", "serve/guard.py", "serve/server.py"},
    "sqlalchemy": {"search/storages.py"},
    "uvicorn": {"serve/server.py"},
    "tenacity": {"store/retry.py", "store/mirror.py"},
    "tensorboardX": {"trackers/to_tensorboard.py", "importing/readers/tensorboard.py"},
    "wandb": {"trackers/to_wandb.py", "importing/readers/wandb_runs.py"},
    "typer": {f"cli/{name}.py" for name in CLI},
}
"""A heavy third-party package -> exactly the files that import it."""

HEAVY_FOLDERS = {
    "safetensors": {"model", "trial", "miniature"},
    "tokenizers": {"data", "miniature"},
    "torch": {"model", "scoring", "trial", "miniature", "estimate", "judges"},
    "transformers": {"data", "model", "scoring", "trial", "miniature", "judges"},
}
"""A heavy third-party package -> the only folders whose files import it."""


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def inner(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@lru_cache
def imports(path: Path) -> tuple[str, ...]:
    """Every module a file imports, dotted; `from sweeper import x` counts as `sweeper.x`."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{inner(path)} imports relatively"
            assert node.module is not None
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in names if is_module(name)]
            found += known or [node.module]
            found += [node.module] if known and len(known) < len(names) else []
    return tuple(found)


def is_module(dotted: str) -> bool:
    if not dotted.startswith("sweeper."):
        return False
    place = ROOT / Path(*dotted.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def unit(dotted: str) -> str:
    """`sweeper.trial.run` -> `trial`."""
    return [*dotted.split("."), ""][1]


def unit_of_file(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def ours(path: Path) -> list[str]:
    return [name for name in imports(path) if name.split(".")[0] == "sweeper"]


def test_every_module_has_a_rank_and_every_rank_a_module() -> None:
    assert {unit_of_file(path) for path in files()} == set(RANKS)


@pytest.mark.parametrize("path", files(), ids=inner)
def test_imports_go_to_lower_ranks_only(path: Path) -> None:
    here = unit_of_file(path)
    wrong = [
        f"{name} (rank {RANKS[unit(name)]})"
        for name in ours(path)
        if unit(name) != here and RANKS[unit(name)] >= RANKS[here]
    ]
    assert wrong == [], f"{inner(path)} has rank {RANKS[here]}"


def test_no_module_can_reach_itself_through_imports() -> None:
    graph = {dotted(path): {module_of(name) for name in ours(path)} for path in files()}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def dotted(path: Path) -> str:
    parts = ["sweeper", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts).removesuffix(".__init__")


def module_of(name: str) -> str:
    return name if is_module(name) or name == "sweeper" else name.rpartition(".")[0]


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_a_heavy_package_is_imported_by_exactly_the_named_files(package: str) -> None:
    assert set(users(package)) == HEAVY[package]


@pytest.mark.parametrize("package", sorted(HEAVY_FOLDERS))
def test_torch_and_its_kin_stay_in_their_folders(package: str) -> None:
    folders = {name.split("/")[0] for name in users(package)}
    assert folders <= HEAVY_FOLDERS[package]
    assert package == "safetensors" or folders, f"nobody imports {package}: is the test looking?"


def users(package: str) -> Iterator[str]:
    for path in files():
        if any(name.split(".")[0] == package for name in imports(path)):
            yield inner(path)


@pytest.mark.parametrize("path", files(), ids=inner)
def test_no_file_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
