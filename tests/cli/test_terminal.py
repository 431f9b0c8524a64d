"""What reaches a terminal: nothing that it would obey, nothing cut off, and progress that fits."""

import ast
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from support.factories import base_record, make_record, make_spec, make_sweep

from sweeper.cli import show
from sweeper.cli.app import _run
from sweeper.planning import make_plan
from sweeper.runs.progress import NARROW, SweepProgress
from sweeper.runs.terminal import Terminal, safe
from sweeper.spec import dump_spec
from sweeper.store.folder import RUN_VERSION, RunFolder
from sweeper.store.records import RecordsRead, TrialRecord

ROOT = Path(__file__).parents[2]

CLEAR, TITLE, BELL = "\x1b[2J", "\x1b]0;owned\x07", "\x07"
LINK = "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\"
C1 = "\x9b31m\x9d0;owned\x9c\x90q\x85"
BIDI = "\u202egnp.exe\u202c\u2066a\u2069\u200f\u061c"
OTHERS = "\x00\x08\r\x0b\x7f\ud800\U000e0041\ufeff\u2028"
HOSTILE = f"{CLEAR}{TITLE}{LINK}{C1}{BIDI}{OTHERS}[red]:smile:[/]"

OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Everything but line ends; written apart from the code."""

Call = Callable[..., str]


def terminal(width: int = 80) -> Terminal:
    """A terminal without colours, whose screen is a string."""
    return Terminal(
        file=io.StringIO(), force_terminal=True, width=width, color_system=None, emoji=False
    )


def screen(console: Terminal) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("letter", sorted(set(HOSTILE)))
def test_each_letter_is_shown_or_written_out(letter: str) -> None:
    text = safe(letter)
    assert not OBEYED.search(text)
    if OBEYED.search(letter):
        assert text.encode("ascii").decode("unicode_escape") == letter
    else:
        assert text == letter


@pytest.mark.parametrize(
    "text", ["plain", "naïve Ünïcode 日本語", "a\tb\nc", "می‌خواهم", "👩‍👩‍👧", "C:\\x1b"]
)
def test_honest_text_is_left_alone(text: str) -> None:
    assert safe(text) == text


def test_every_way_into_the_console_is_safe() -> None:
    console = terminal(2000)
    console.print(HOSTILE, markup=False, soft_wrap=True)
    console.print(Text(HOSTILE))
    table = Table(escape(HOSTILE), title=escape(HOSTILE))
    table.add_row(Text(HOSTILE))
    console.print(table)
    assert not OBEYED.search(screen(console))
    assert screen(console).count(r"\x1b[2J\x1b]0;owned") == 5
    with Progress(console=console) as bar:
        bar.add_task(escape(HOSTILE), total=1)
    shown = re.sub(r"\x1b\[(\?25[lh]|\d*A|2K)|\r", "", screen(console))  # The bar moves, by rich.
    assert not OBEYED.search(shown)


def test_columns_of_hostile_text_stay_straight() -> None:
    console = terminal(400)
    table = Table("a", "b")
    table.add_row(escape(HOSTILE.replace("\n", "")), "x")
    table.add_row("plain", "y")
    console.print(table)
    rows = [line for line in screen(console).splitlines() if "│" in line]
    assert len({line.rindex("│") for line in rows}) == 1


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `sweeper ...` in this process; all that it printed."""

    def found(*words: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["sweeper", *map(str, words)])
        capsys.readouterr()
        _run()
        return "".join(capsys.readouterr())

    return found


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run whose every text is hostile: settings, names of metrics and controls, reasons."""
    spec = make_spec()
    folder = RunFolder(tmp_path / "run")
    folder.root.mkdir()
    rate = make_record().metrics["unsafe_rate"]
    hostile = [
        replace(
            record,
            config={**record.config, "model": HOSTILE, "template": HOSTILE},
            metrics={**record.metrics, f"unsafe_rate/{HOSTILE}": rate},
            reason=record.reason and dict.fromkeys(record.reason, HOSTILE),
        )
        for record in make_sweep(spec)
    ]
    folder.records.write_text("".join(f"{record.to_json()}\n" for record in hostile))
    folder.spec.write_text(dump_spec(spec))
    folder.info.write_text(f'{{"version": {RUN_VERSION}}}')
    folder.plan.write_text('{"accounting": {"readouts": 140}}')
    return folder


def test_no_command_lets_hostile_data_through(call: Call, run: RunFolder, tmp_path: Path) -> None:
    records = [TrialRecord.from_json(line) for line in run.records.read_text().splitlines()]
    good, bad = (
        next(r.config_id for r in records if r.status == s) for s in ("complete", "failed")
    )
    seen = ""
    for words in (
        ("front",),
        ("recommend",),
        ("show", good),
        ("show", bad),
        ("compare", good, bad),
        ("rescore",),
    ):
        for form in ((), ("--json",)):
            seen += call(words[0], run.root, *words[1:], *form)
    seen += call("ls", tmp_path) + call("ls", tmp_path, "--json")
    broken = tmp_path / "broken.yaml"
    broken.write_text('version: 1\nname: "a\\e[2Jb"\n"k\\x9b": 1\n')
    seen += call("plan", broken)
    run.records.write_text('{"version": "\\u001b[2J"}\n')
    seen += call("front", run.root) + call("ls", tmp_path)
    assert not OBEYED.search(seen)
    assert seen.count(r"\x1b[2J\x1b]0;owned\x07") > 10
    assert r"\u202egnp.exe" in seen and "unreadable: " in seen


def test_only_the_one_place_prints() -> None:
    wrong = []
    for path in (ROOT / "sweeper").rglob("*.py"):
        # A worker prints for its driver, a server beside a run for that, both into pipes and files.
        if path.name in ("show.py", "terminal.py", "worker.py", "beside.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if name.split(".")[-1] in ("print", "echo", "secho", "Console", "Live", "write"):
                allowed = name in ("show.err.print", "show.out.print", "to.print")
                if not allowed and (name.split(".")[-1] != "write" or "std" in name):
                    wrong.append(f"{path.name}: {name}")
    assert wrong == []


def wide_table() -> Table:
    table = Table("configuration", "learning_rate", "a metric of a long name", title="Front")
    table.add_row("431350f56f", "0.004", "0.013 (3/240; 0.004 to 0.036)")
    table.add_row("9d5d06d984", "0.002", "unbroken" * 12)
    return table


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_table_fits_and_nothing_of_it_is_cut(width: int) -> None:
    console = terminal(width)
    show.fit(wide_table(), console)
    text = screen(console)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    joined = re.sub(r"[\s│┃]", "", text)
    for part in ("431350f56f", "0.004", "0.013", "(3/240;", "0.036)", "0.002"):
        assert part in joined
    assert len(re.findall("[unbroke]", joined)) >= len("unbroken") * 12
    assert ("│" in text) == (width == 200)


def test_a_block_leaves_out_what_is_empty() -> None:
    console = terminal(30)
    table = Table("run", "a name that is long", "its objectives", "size")
    table.add_row("damaged", "", "", "1.7 MiB")
    show.fit(table, console)
    assert screen(console).split() == ["damaged", "size", "1.7", "MiB"]


def sweep_progress(console: Terminal, count: int, doing: Sequence[str] = ()) -> None:
    spec = make_spec()
    clock = iter(range(0, 10**6, 60))
    with SweepProgress(spec, console, seconds=lambda: next(clock), doing=lambda: doing) as shown:
        shown.begin(make_plan(spec), RecordsRead((), b"", 0))
        shown.record(base_record())
        for i in range(count - 1):
            shown.record(make_record(identity=f"x{i}", utility=0.8, unsafe=(0, 256)))


@pytest.mark.parametrize("width", [40, 80, 160])
def test_progress_fits_the_terminal(width: int) -> None:
    console = terminal(width)
    sweep_progress(console, 60)
    total = make_plan(make_spec()).accounting.readouts
    lines = re.split(r"[\r\n]|\x1b\[\??\d*[A-Zlh]", screen(console))
    assert max(map(len, lines)) <= width
    bars = [line for line in lines if f"60/{total}" in line]
    assert bars
    assert all(line.startswith("synthetic") == (width >= NARROW) for line in bars)
    assert any(line.startswith("best feasible: rouge_l 0.800") for line in lines)


def test_trials_are_shown_below_the_bar() -> None:
    console = terminal(60)
    doing = [
        f"lr {i}e-3, batch 16, seed 0: scor\x1b[31ming, step 20 of 20, more" for i in range(1, 7)
    ]
    sweep_progress(console, 20, doing)
    text = screen(console)
    assert "lr 1e-3, batch 16, seed 0" in text and "lr 4e-3, batch 16, seed 0" in text
    assert "lr 5e-3" not in text and "and 2 more trials" in text
    assert "\x1b[31m" not in text
    lines = re.split(r"[\r\n]|\x1b\[\??\d*[A-Zlh]", text)
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("term", ["a file", "dumb"])
def test_a_log_gets_one_line_per_tenth_and_no_control(
    monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    console = Terminal(
        file=io.StringIO(), force_terminal=term == "dumb", width=160, color_system=None
    )
    total = make_plan(make_spec()).accounting.readouts
    sweep_progress(console, total)
    text = screen(console)
    assert not OBEYED.search(text)
    lines = [line for line in text.splitlines() if "records" in line]
    tenth = total // 10
    counted = [int(line.partition("/")[0]) for line in lines]
    assert counted == sorted({*range(tenth, total + 1, tenth), total})
    # A minute goes by for every record: the others take ten times as long as the first tenth.
    found = re.match(rf"{tenth}/{total} records, 19.0 min elapsed, about (.+) h left; ", lines[0])
    assert found is not None and float(found[1]) == pytest.approx((total - tenth) / 60, rel=0.05)
    assert lines[-1].startswith(f"{total}/{total} records, ") and " left" not in lines[-1]


@pytest.mark.parametrize(
    ("columns", "environment"),
    [(40, {"TERM": "xterm-256color", "NO_COLOR": "1"}), (160, {"TERM": "dumb"})],
)
def test_a_real_terminal_gets_colours_only_if_it_may(
    run: RunFolder, columns: int, environment: dict[str, str]
) -> None:
    code, shown = in_terminal(["front", str(run.root)], {**environment, "COLUMNS": str(columns)})
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert not OBEYED.search(plain)
    assert not re.search(r"\x1b\[(3[0-7]|9[0-7]|38;)", shown)
    blocks = plain[: plain.index(" on the front, of ")].splitlines()[:-1]
    assert len(blocks) > 5 and max(map(len, blocks)) <= columns


def test_run_says_what_it_does_before_it_has_read_anything(tmp_path: Path) -> None:
    words = ["run", str(tmp_path / "absent.yaml")]
    code, shown = in_terminal(words, {"COLUMNS": "200"})
    first, second, *_ = shown.splitlines()
    assert code == 2 and first.startswith("preparing: ") and second.startswith("error: ")
    piped = subprocess.run(
        [sys.executable, "-m", "sweeper", *words], capture_output=True, text=True, check=False
    )
    assert piped.stderr.startswith("error: ") and not piped.stdout


def in_terminal(words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the screen of `sweeper ...` in a terminal of its own."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "sweeper", *words]
    process = subprocess.Popen(
        command, stdout=slave, stderr=slave, env={**os.environ, **environment}
    )
    os.close(slave)
    text = b""
    while chunk := _read(master):
        text += chunk
    os.close(master)
    return process.wait(), text.decode("utf-8").replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux ends a terminal whose other side is closed like this.
        return b""
