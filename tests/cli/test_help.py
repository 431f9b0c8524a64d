"""Every command's help ends with an example that works, and the shell completes what people type."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.factories import make_spec, make_sweep
from support.run_folders import write_run
from typer.testing import CliRunner

from sweeper.analysis import NAMES
from sweeper.cli.commands import COMMANDS, CommandGroup, all_commands, app
from sweeper.cli.examples import EXAMPLES
from sweeper.spec.load import shipped_specs
from sweeper.store.folder import RunFolder

SCRIPT = Path(sys.executable).with_name("sweeper")


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group, the root included."""
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


PATHS = list(commands(all_commands()))


def test_every_command_has_examples_and_every_example_a_command() -> None:
    assert {" ".join(path) for path in PATHS} == set(EXAMPLES)
    assert len(PATHS) > len(COMMANDS)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_ends_with_examples_that_parse(path: tuple[str, ...]) -> None:
    answer = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}, prog_name="sweeper")
    assert answer.exit_code == 0
    _, _, end = answer.output.partition("Example")
    lines = [line.strip() for line in end.splitlines() if line.strip().startswith("sweeper ")]
    lines += re.findall(r"^: (sweeper .*)$", end.strip(), re.MULTILINE)
    assert lines and all(line.startswith(shlex.join(["sweeper", *path])) for line in lines)
    for line in lines:
        words = shlex.split(line)[1:]
        command: Any = all_commands()
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        command.make_context("example", list(words))
        given = [word for word in shlex.split(line) if word.startswith("--")]
        assert set(given) <= {option for item in command.params for option in item.opts}


def test_an_example_with_an_unknown_option_would_not_parse() -> None:
    answer = CliRunner().invoke(app, ["front", "x", "--jsn"])
    assert answer.exit_code == 2


def completed(shell: str, line: str, folder: Path) -> list[str]:
    """What the shell's own script would be given for a line that ends at the cursor."""
    words = shlex.split(line)
    bare = line.endswith(" ")
    environment = {
        **os.environ,
        "_SWEEPER_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - (not bare)),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    answer = subprocess.run(
        [SCRIPT], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert answer.stderr == ""
    return [line for line in answer.stdout.splitlines() if line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a folder that is none, and a sweep file."""
    root = tmp_path_factory.mktemp("shell")
    run = RunFolder(root / "runs" / "first")
    run.root.mkdir(parents=True)
    run.info.write_text("{}")
    lines = [f"{record.to_json()}\n" for record in make_sweep(make_spec())]
    run.records.write_text("".join(lines))
    (root / "runs" / "other").mkdir()
    (root / "mine.yaml").write_text("version: 1\n")
    return root


def test_bash_completes_commands_options_sweeps_runs_and_configurations(folder: Path) -> None:
    def bash(line: str) -> list[str]:
        return completed("bash", line, folder)

    assert sorted(bash("sweeper re")) == ["recommend", "report", "rescore", "resume"]
    assert bash("sweeper front --j") == ["--json", "--judge"]
    assert bash("sweeper plan mini") == [n for n in shipped_specs() if n.startswith("mini")]
    assert bash("sweeper run min") == ["miniature", "miniature_full", "mine.yaml"]
    assert bash("sweeper front runs/") == ["runs/first", "runs/other/"]
    assert bash("sweeper recommend runs/first --policy ") == list(NAMES)
    ids = sorted({record.config_id for record in make_sweep(make_spec())})
    assert sorted(bash("sweeper show runs/first ")) == ids
    assert bash(f"sweeper compare runs/first {ids[0]} {ids[0]}") == []
    assert bash(f"sweeper compare runs/first {ids[0]} {ids[1][:6]}") == [ids[1]]
    assert bash("sweeper show runs/other ") == []


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_the_same(folder: Path, shell: str) -> None:
    text = "\n".join(completed(shell, "sweeper show runs/fi", folder))
    assert "runs/first" in text and "other" not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str) -> None:
    environment = {**os.environ, "_SWEEPER_COMPLETE": f"source_{shell}"}
    answer = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert f"_SWEEPER_COMPLETE=complete_{shell}" in answer.stdout


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a program."""
    program = f"import sys\n{code}\nprint(repr(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(answer.stdout.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_starting_and_completing_load_nothing_heavy() -> None:
    found = packages(
        loaded("import sweeper.cli; from sweeper.cli import completions; completions.specs('m')")
    )
    assert not found & {"torch", "transformers", "ray", "optuna", "pandas", "plotly", "scipy"}


def test_the_list_of_commands_loads_only_what_draws_it() -> None:
    found = loaded(
        "import sweeper.cli\nsys.argv = ['sweeper', '--help']\n"
        "try: sweeper.cli.main()\nexcept SystemExit: pass"
    )
    ours = {module for module in found if module.startswith("sweeper.") and module.count(".") == 2}
    shown = {"app", "commands", "examples", "show"}
    assert ours == {*(f"sweeper.cli.{name}" for name in shown), "sweeper.runs.terminal"}
    assert {"typer", "rich"} <= packages(found)
    assert not packages(found) & {"numpy", "pydantic", "yaml", "tenacity", "asyncio", "scipy"}


@pytest.mark.parametrize("name", ["front", "recommend", "show", "compare"])
def test_reading_a_run_needs_no_frame_no_chart_and_no_model(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path, make_sweep(seed=3), readouts=139)
    ids = sorted({record.config_id for record in make_sweep(seed=3)})
    words = [name, str(run.root), *ids[: {"show": 1, "compare": 2}.get(name, 0)]]
    found = loaded(
        f"import sweeper.cli\nsys.argv = ['sweeper', *{words!r}]\n"
        "try: sweeper.cli.main()\nexcept SystemExit as end: assert end.code == 0\n"
        "import os\nassert 'OPENBLAS_NUM_THREADS' not in os.environ"
    )
    heavy = {"pandas", "plotly", "pyarrow", "torch", "transformers", "ray", "optuna", "jinja2"}
    assert not packages(found) & {*heavy, "asyncio", "tenacity"}
    assert not found & {"sweeper.estimate", "sweeper.export", "sweeper.runs.listing"}
    assert "sweeper.analysis" in found


def test_the_list_says_what_the_commands_say() -> None:
    entries: Any = CommandGroup(name="sweeper", commands={}).commands
    assert list(entries) == list(COMMANDS)
    commands: dict[str, Any] = dict(all_commands().commands)
    for name, command in commands.items():
        real = command.help.partition("\n\n")[0].replace("\n", " ")
        assert (entries[name].help, entries[name].rich_help_panel) == (
            real,
            command.rich_help_panel,
        )
