"""Who may import whom, read from the source with `ast`; imports inside functions count too."""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sweeper"

RANKS = {
    "errors": -1,
    "rules": 0,
    "metrics": 0,
    "wording": 0,
    "patience": 0,
    "task": 1,
    "folder": 1,
    "keywords": 1,
    "stats": 1,
    "provenance": 1,
    "samples": 1,
    "spec": 1,
    "memory": 2,
    "agreement": 2,
    "plan": 2,
    "records": 2,
    "stopping": 2,
    "placement": 2,
    "progress": 2,
    "lock": 2,
    "rounds": 3,
    "migrate": 3,
    "cost": 3,
    "front": 3,
    "loggers": 3,
    "miniature": 3,
    "trial": 3,
    "certainty": 4,
    "search": 5,
    "select": 4,
    "sources": 4,
    "trials": 4,
    "facts": 4,
    "judges": 4,
    "adaptive": 6,
    "refine": 5,
    "calibrate": 5,
    "confirm": 5,
    "disk": 4,
    "kept": 5,
    "mirror": 3,
    "clean": 6,
    "drive": 5,
    "figures": 5,
    "preflight": 5,
    "export": 6,
    "verify": 5,
    "launch": 6,
    "report": 7,
    "doctor": 6,
    "listing": 5,
    "prefetch": 6,
    "serve": 8,
    "sweep": 7,
    "run": 6,
    "cli": 9,
    "__main__": 10,
    "": 10,
}
"""The unit (a module or a package directly below `sweeper`) -> its rank; "" is `sweeper` itself."""

INNER_RANKS = {
    "trial": {
        "hub": -4,
        "likeness": -4,
        "rows": -3,
        "formats": -2,
        "suites": -2,
        "data": -1,
        "dialogues": -1,
        "__init__": 0,
        "adapters": 0,
        "averaging": 0,
        "cache": 0,
        "checkpoint": 0,
        "failure": 0,
        "watchdog": 0,
        "judge": 0,
        "memory": 0,
        "split": 0,
        "world": 0,
        "encode": 1,
        "shards": 1,
        "generate": 2,
        "logits": 2,
        "model": 2,
        "train": 3,
        "saved": 3,
        "harness": 3,
        "utility": 3,
        "texts": 3,
        "inputs": 4,
        "room": 5,
        "score": 5,
        "member": 6,
        "beats": 7,
        "attempt": 8,
        "ranks": 9,
        "run": 10,
        "worker": 11,
    },
    "judges": {
        "base": 0,
        "pace": 0,
        "formats": 1,
        "keyword": 1,
        "store": 1,
        "local": 2,
        "remote": 2,
        "rescore": 2,
        "overlay": 3,
        "__init__": 4,
    },
    "launch": {
        "options": 0,
        "templates": 0,
        "inputs": 0,
        "ray_jobs": 0,
        "prepare": 1,
        "submit": 2,
        "__init__": 3,
    },
    "cli": {
        "cleaning": 2,
        "completions": 0,
        "examples": 0,
        "show": 0,
        "options": 1,
        "progress": 1,
        "recommendations": 1,
        "show_judges": 1,
        "standings": 1,
        "details": 2,
        "inspecting": 3,
        "judging": 2,
        "launching": 2,
        "machine": 2,
        "migrating": 2,
        "recommending": 2,
        "rescoring": 2,
        "results": 2,
        "serving": 2,
        "sweeps": 2,
        "app": 4,
        "__init__": 5,
    },
}
"""In these packages, too, a module imports only siblings of lower rank; in the others all may."""

CLI = (
    "app",
    "cleaning",
    "completions",
    "examples",
    "inspecting",
    "judging",
    "launching",
    "machine",
    "migrating",
    "options",
    "progress",
    "recommending",
    "rescoring",
    "results",
    "serving",
    "sweeps",
)

HEAVY = {
    "datasets": {"trial/harness.py", "trial/hub.py"},
    "jinja2": {"report/page.py", "serve/pages.py", "trial/dialogues.py", "trial/harness.py"},
    "mlflow": {"loggers/to_mlflow.py"},
    "lm_eval": {"trial/harness.py"},
    "optuna": {"search/ask.py", "search/storages.py", "search/study.py"},
    "pandas": {"run.py"},
    "peft": {"trial/adapters.py"},
    "plotly": {
        f"figures/{name}.py"
        for name in (
            "draw",
            "draw_bars",
            "draw_panels",
            "draw_parallel",
            "draw_training",
            "dress",
            "front",
            "fronts",
        )
    },
    "pyarrow": {"mirror.py", "trial/hub.py", "trial/rows.py"},
    "pydantic": {
        f"spec/{name}.py" for name in ("axes", "data", "fields", "load", "models", "references")
    },
    "ray": {"drive.py", "trials.py", "launch/ray_jobs.py"},
    "requests": {"judges/remote.py", "launch/ray_jobs.py"},
    "rich": {
        f"cli/{name}.py"
        for name in (
            "details",
            "progress",
            "recommendations",
            "rescoring",
            "show",
            "show_judges",
            "standings",
        )
    },
    "rouge_score": {"trial/utility.py"},
    "scipy": {"search/ask.py"},
    "starlette": {"serve/app.py", "serve/guard.py", "serve/server.py"},
    "sqlalchemy": {"search/storages.py"},
    "uvicorn": {"serve/server.py"},
    "tensorboardX": {"loggers/to_tensorboard.py"},
    "wandb": {"loggers/to_wandb.py"},
    "typer": {f"cli/{name}.py" for name in CLI},
}
"""A heavy third-party package -> exactly the files that import it."""

HEAVY_FOLDERS = {
    "safetensors": {"trial", "miniature"},
    "tokenizers": {"trial", "miniature"},
    "torch": {"trial", "miniature", "calibrate.py", "judges"},
    "transformers": {"trial", "miniature", "judges"},
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


@pytest.mark.parametrize("package", sorted(INNER_RANKS))
def test_siblings_are_imported_from_lower_inner_ranks_only(package: str) -> None:
    ranks = INNER_RANKS[package]
    paths = sorted((PACKAGE / package).rglob("*.py"))
    assert {path.stem for path in paths} == set(ranks)
    for path in paths:
        siblings = [name.split(".")[2] for name in ours(path) if unit(name) == package]
        wrong = [name for name in siblings if ranks[name] >= ranks[path.stem]]
        assert wrong == [], f"{inner(path)} has inner rank {ranks[path.stem]}"


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
def test_no_file_is_longer_than_350_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350
