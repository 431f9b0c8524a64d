"""The documentation keeps its promises: sizes, links, plain words, examples that load, a site."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import yaml

import sweeper
import sweeper.cli.app
from sweeper import errors
from sweeper.cli.commands import all_commands
from sweeper.cli.examples import EXAMPLES
from sweeper.runs.command_outputs import json_schemas
from sweeper.spec import load_spec, parse_spec
from sweeper.spec.reference import spec_reference

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOW_TOS = [path for path in (DOCS / "how-to").glob("*.md") if path.name != "index.md"]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]

DIALECT = (
    "asked for",
    "brought down",
    "held against",
    "is told",
    "it does little else",
    "it says how sure",
    "it trains as you do",
    "kin of",
    "nothing of it is lost",
    "stands twice",
    "what ended how",
    "before you trust it",
    "along the training steps",
    "storage that is away",
)
"""Phrases that a native engineer of the field would not write."""

OLD_NAMES = (
    r"compute\.pack\b",
    r"stall_minutes",
    r"compute\.loggers",
    r"full_responses",
    r"search\.trajectories",
    r"--plotly-beside",
    r"--fresh\b",
    r"--samples\b",
    r"--rate\b",
    r"sweeper study\b",
    r"\btorchtune\b",
    r"docs/(spec|data|exactness|statistics|json|cost|gpus|disk)\.md",
)
"""Keys, flags, commands and pages that are gone; the changelog may name them."""


def module(path: Path) -> ModuleType:
    """A file that is part of no package."""
    found = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert found is not None and found.loader is not None
    loaded = importlib.util.module_from_spec(found)
    sys.modules[found.name] = loaded
    found.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    return module(DOCS / "generate.py")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_hand_written_pages_stay_short(generate: ModuleType) -> None:
    counts = generate.hand_written()
    assert len(counts) >= 24
    assert sum(counts.values()) <= 15_000
    assert len(HOW_TOS) == 12
    for path in HOW_TOS:
        assert counts[str(path.relative_to(DOCS))] <= 400, path.name


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    lines = read(ROOT / "README.md").splitlines()
    assert len(lines) <= 90
    commands = [tuple(line.split()[:2]) for line in lines if line.startswith(("make ", "sweeper "))]
    assert commands[:2] == [("make", "demo"), ("make", "test")]
    assert commands[2:] == [("sweeper", name) for name in ("plan", "run", "recommend")]
    assert sum(line.startswith("![") for line in lines) == 1


def test_the_sweep_file_of_the_readme_is_that_of_the_examples() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", read(ROOT / "README.md"), re.DOTALL)
    assert text.count("\n") == 12
    assert parse_spec(text) == load_spec(str(ROOT / "examples" / "my_model.yaml"))


@pytest.mark.parametrize(
    ("name", "size"), [("miniature", 700), ("smollm2", 700), ("imported", 640)]
)
def test_the_pictures_are_small(name: str, size: int) -> None:
    data = (DOCS / "assets" / f"{name}.png").read_bytes()
    width, height = (int.from_bytes(data[place : place + 4], "big") for place in (16, 20))
    assert data.startswith(b"\x89PNG") and (width, height) == (1200, size)
    assert len(data) < 150_000


@pytest.mark.parametrize("path", [*TOP, *(ROOT / "examples").glob("*.md")], ids=lambda p: p.name)
def test_links_of_pages_outside_the_site_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if not target.startswith(("http://", "https://", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", [*PAGES, *TOP[:2]], ids=lambda p: p.name)
def test_plain_words(path: Path) -> None:
    text = " ".join(read(path).lower().split())
    assert [phrase for phrase in DIALECT if phrase in text] == []
    assert [name for name in OLD_NAMES if re.search(name, text)] == []
    assert not re.search(r"pip install '?sweeper(?!-llm)", text)


def test_help_has_plain_words() -> None:
    texts: list[str] = []

    def collect(command: object) -> None:
        texts.append(getattr(command, "help", None) or "")
        texts.extend(getattr(item, "help", None) or "" for item in getattr(command, "params", []))
        for inner in getattr(command, "commands", {}).values():
            collect(inner)

    collect(all_commands())
    assert len(texts) > 60
    text = " ".join(" ".join(texts).lower().split())
    assert [phrase for phrase in DIALECT if phrase in text] == []


def test_commands_in_the_docs_exist() -> None:
    """Every `sweeper COMMAND --option` that a page shows is one that the program has."""
    root = all_commands()
    seen = set()
    for path in [*PAGES, *TOP[:2], ROOT / "examples" / "slurm.sh"]:
        text = read(path).replace("\\\n", " ")
        for line in re.findall(r"(?:^|`)sweeper ([a-z-]+[^`\n]*)", text, re.MULTILINE):
            words = line.partition("  #")[0].split()
            command = root.commands[words[0]]
            if hasattr(command, "commands"):
                command = command.commands[words[1]]
            options = {name for item in command.params for name in item.opts + item.secondary_opts}
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert given <= options, f"{path.name}: sweeper {line}"
            seen.add(words[0])
    assert len(seen) > 15
    assert seen <= {name.split()[0] for name in EXAMPLES if name}


def test_yaml_in_the_docs_is_part_of_a_sweep_file() -> None:
    """Each block, put into the smallest sweep file, is accepted."""
    smallest = yaml.safe_load(read(ROOT / "examples" / "my_model.yaml"))
    count = 0
    for path in PAGES:
        if path.parent.name == "reference":
            continue
        for text in re.findall(r"```yaml\n(.*?)```", read(path), re.DOTALL):
            if "--8<--" in text:
                continue
            part = yaml.safe_load(text)
            whole = {**smallest, **part}
            for block in ("evaluation", "space", "data"):
                if block in part:
                    whole[block] = {**smallest[block], **part[block]}
            parse_spec(yaml.safe_dump(whole), source=str(path))
            count += 1
    assert count >= 8


def test_the_slurm_example_is_a_sound_script() -> None:
    script = ROOT / "examples" / "slurm.sh"
    checker = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([checker, script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_python_in_the_docs_uses_the_api() -> None:
    """Each block parses, and what it takes from `sweeper` and calls on a run exists."""
    count = 0
    for path in [*PAGES, ROOT / "README.md"]:
        inline = re.findall(r"`(run\.\w+\([^`]*\))`", read(path))
        for text in [*re.findall(r"```python\n(.*?)```", read(path), re.DOTALL), *inline]:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    known = {"sweeper": sweeper.__all__, "run": dir(sweeper.Run)}
                    assert node.attr in known.get(node.value.id, [node.attr]), (
                        f"{path.name}: {text}"
                    )
                    count += node.value.id in known
    assert count > 12


def test_the_house_on_one_page_is_the_house() -> None:
    """CONTRIBUTING.md lists the packages that there are, with the ranks that the layer test has."""
    layers = module(ROOT / "tests" / "test_layers.py")
    rank, found = "", {}
    for line in read(ROOT / "CONTRIBUTING.md").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and re.fullmatch(r"\d*", cells[0]):
            rank = cells[0] or rank
            for name in re.findall(r"`([\w.]+)`", cells[1]):
                found[name.removesuffix(".py")] = int(rank)
    expected = {name: rank for name, rank in layers.RANKS.items() if name and name != "__main__"}
    assert found == expected


def test_files_and_folders_of_the_house_are_there() -> None:
    paths = re.findall(
        r"`([\w.]+(?:/[\w.]+)*(?:/|\.py|\.yaml|\.md))`", read(ROOT / "CONTRIBUTING.md")
    )
    assert len(paths) > 15
    places = (ROOT, ROOT / "sweeper")
    made = {"site/"}  # By `make docs`.
    missing = [p for p in paths if p not in made and not any((at / p).exists() for at in places)]
    assert missing == []


def test_every_metric_has_its_sentence(generate: ModuleType) -> None:
    assert set(generate.MEANINGS) == set(generate.metrics.KINDS)


def test_the_reference_has_every_key_code_and_public_name(generate: ModuleType) -> None:
    keys = generate.filled(read(DOCS / "reference" / "sweep-file.md"))
    assert [key.path for key in spec_reference() if f"| `{key.path}` |" not in keys] == []
    codes = generate.error_codes()
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    known = [item for item in classes if issubclass(item, errors.SweeperError)]
    wanted = [code for item in known for code in (item.code, *item.faults)]
    assert len(wanted) > 40
    assert [code for code in wanted if f"| `{code}` |" not in codes] == []
    api = generate.python_api()
    names = {*sweeper.__all__} - {"__version__", "SweepSpec"}
    assert [name for name in names if not re.search(rf"^::: \S+\.{name}$", api, re.MULTILINE)] == []
    printed = generate.filled(read(DOCS / "reference" / "json.md"))
    for command, schema in json_schemas().items():
        assert f"## sweeper {command}\n" in printed
        for key in schema.get("properties", {}):
            assert f"| `{key}` |" in printed
    with pytest.raises(KeyError, match="nothing_fills_this"):
        generate.filled("{{nothing_fills_this}}")


def test_the_page_of_measurements_has_every_outcome(generate: ModuleType) -> None:
    page = generate.measurements()
    sweeps = generate.shipped_sweeps()
    assert page.count("| SFTTrainer |") == 9
    assert "| full | float32 | 1 | Trainer | 2.1e-07 | 3.8e-08 | 3.0e-07 |" in page
    assert sweeps.count("| `llama32_1b_dolly_lora` |") == 2
    assert "none was measured on a GPU" in " ".join(sweeps.split())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it; a broken link or anchor fails here."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir"]
    built = subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 35
    tag = re.compile(
        r"<(?:script|img|iframe|link rel=\"?stylesheet\"?)\b[^>]*?(?:src|href)=\"?https?:"
    )
    for page in pages:
        assert tag.findall(read(page)) == [], page.name
    for path in ("reference/cli.html", "reference/metrics.html", "reference/measurements.html"):
        assert (site / path).exists()


@pytest.mark.slow
def test_pages_and_their_search_work_from_the_disk(site: Path, chromium: "Browser") -> None:
    """Without a server or a network: the notebook's figure is drawn, and the search finds a page."""
    page = chromium.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((site / "tutorials" / "miniature.html").as_uri())
    page.wait_for_selector(".main-svg")
    page.goto((site / "index.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("curtailment")
    page.wait_for_selector(".md-search-result__item")
    assert "Search and stopping" in page.inner_text(".md-search-result__list")
    page.close()
    assert errors == []
    assert len(requests) > 10
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
def test_a_broken_link_or_anchor_ends_the_build(tmp_path: Path) -> None:
    levels = read(ROOT / "mkdocs.yml").split("\nvalidation:")[1].split("\n\n")[0]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[b](b.md) [c](index.md#nowhere)\n")
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nstrict: true\nvalidation:{levels}\n")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode != 0
    assert "b.md" in built.stderr and "nowhere" in built.stderr
