"""`make mutants`: small faults in the code that decides, and whether the tests of its package notice.

A seeded sample of faults per package, each in a process of its own that reads one module with the fault;
no file changes. What survives has a reason in results/mutants.json.
"""

import argparse
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from support.faults import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
PACKAGES = ("stats", "analysis", "scoring", "keywords")
OWN_ONLY = ("test_generate.py", "test_harness.py")
"""Files that take minutes: only for the modules they are named after."""
SIMULATIONS = ("test_coverage.py", "test_selection_worlds.py", "test_front_calibration.py")
"""Files that take long: after the others."""
TIMEOUT_SECONDS = 240.0


class _Loader(SourceFileLoader):
    """Loads one module from another text, and is the finder for it, too."""

    def __init__(self, module: str, source: str) -> None:
        name = f"sweeper.{module.replace('/', '.')}"
        super().__init__(name, str(ROOT / "sweeper" / f"{module}.py"))
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)


def package_tests(module: str) -> list[str]:
    """The tests of a module's package; first those in files with the module's name."""
    package, _, name = module.partition("/")
    files = sorted((ROOT / "tests" / package).glob("test_*.py"))
    own = [path for path in files if path.name.startswith(f"test_{name}")]
    rest = [path for path in files if path not in own and path.name not in OWN_ONLY]
    rest.sort(key=lambda path: path.name in SIMULATIONS)
    return [str(path.relative_to(ROOT)) for path in [*own, *rest]]


def ended(module: str, source: str, tests: Sequence[str]) -> str:
    """How the tests end, in a child of this process: `passed`, `failed`, or `timed out`."""
    if (child := os.fork()) == 0:
        sys.meta_path.insert(0, _Loader(module, source))
        os._exit(_quietly(["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", *tests]))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "failed" if status else "passed"
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _quietly(arguments: list[str]) -> int:
    sink = os.open(os.devnull, os.O_WRONLY)
    kept = os.dup(1), os.dup(2)
    os.dup2(sink, 1), os.dup2(sink, 2)
    code = int(pytest.main(arguments))
    os.dup2(kept[0], 1), os.dup2(kept[1], 2)
    return code


def prepare(packages: Sequence[str]) -> None:
    """Import what tests import, and forget everything of this project: a child only loads that anew."""
    _quietly(["--collect-only", "-q", *(f"tests/{name}" for name in packages)])
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if name != "__main__" and file.startswith(str(ROOT)) and "/.venv/" not in file:
            del sys.modules[name]


def sampled(package: str, count: int, seed: int) -> tuple[int, list[Mutant]]:
    """How many faults a package can have, and a seeded sample of them."""
    every: list[Mutant] = []
    for path in sorted((ROOT / "sweeper" / package).glob("*.py")):
        every += mutants_of(f"{package}/{path.stem}", path.read_text("utf-8"))
    return len(every), random.Random(seed).sample(every, min(count, len(every)))


def survivors(package: str, sample: Sequence[Mutant]) -> Iterator[str]:
    """The faults that no test notices, by name.

    Raises:
        RuntimeError: tests fail without a fault.
    """
    if ended("none", "", package_tests(f"{package}/none")) != "passed":
        raise RuntimeError(f"the tests of {package} fail without a fault; mend them first")
    for mutant in sample:
        end = ended(mutant.module, mutant.source, package_tests(mutant.module))
        print(f"{end:>9}  {mutant.key}", flush=True)
        if end == "passed":
            yield mutant.key


def main() -> int | str:
    """Run the sample; an error where something survives without a reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=PACKAGES)
    parser.add_argument("--sample", type=int, default=25, help="faults per package")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    os.chdir(ROOT)
    prepare(given.packages)
    for package in given.packages:
        possible, sample = sampled(package, given.sample, given.seed)
        survived = list(survivors(package, sample))
        kept = json.loads(RESULTS.read_text("utf-8"))
        kept["packages"][package] = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seed": given.seed,
            "possible": possible,
            "sampled": len(sample),
            "survived": survived,
        }
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    kept = json.loads(RESULTS.read_text("utf-8"))
    survived = [key for row in kept["packages"].values() for key in row["survived"]]
    unexplained = [key for key in survived if key not in kept["reasons"]]
    return "\n".join(f"survived, without a reason: {key}" for key in unexplained) or 0


if __name__ == "__main__":
    sys.exit(main())
