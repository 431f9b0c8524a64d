"""Sources as people have them, most of them bad: one message and exit code 2, or rows left out, counted."""

import gzip
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.command import Command

HEADER = "learning_rate,batch_size,seed,accuracy,unsafe_rate,n\n"
GOOD = f"{HEADER}1e-4,8,0,0.5,0.1,100\n2e-4,8,0,0.6,0.2,100\n4e-4,8,0,0.7,0.3,100\n"

Make = Callable[[Path], Path]


def text(content: str | bytes, name: str = "runs.csv", encoding: str = "utf-8") -> Make:
    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return folder / Path(name).parts[0]

    return make


def row(cells: str) -> Make:
    """Three good rows and another one."""
    return text(f"{GOOD}{cells}\n")


def column(name: str) -> Make:
    """A column of settings with this name."""
    return text(GOOD.replace("batch_size", name))


def other_database(folder: Path) -> Path:
    with sqlite3.connect(folder / "other.db") as database:
        database.execute("create table t (a)")
    database.close()
    return folder / "other.db"


def loop(folder: Path) -> Path:
    (folder / "loop").mkdir()
    (folder / "loop" / "self").symlink_to(folder / "loop")
    return folder / "loop"


def dangling(folder: Path) -> Path:
    (folder / "runs.csv").symlink_to(folder / "nowhere")
    return folder / "runs.csv"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "runs.csv")
    return folder / "runs.csv"


def own_run(folder: Path) -> Path:
    text("{}", "run/run.json")(folder)
    return text("", "run/records.jsonl")(folder)


LR = '"learning_rate": 1e-4'

REFUSED: dict[str, tuple[Make, str]] = {
    "utf-16": (text(GOOD, encoding="utf-16"), "UTF-16; convert the file to UTF-8"),
    "latin-1": (text("größe,a\n1,2\n", encoding="latin-1"), "not UTF-8 at byte 2"),
    "decimal commas": (
        text(GOOD.replace(",", ";").replace(".", ",")),
        "`accuracy` is written with decimal commas",
    ),
    "unclosed quote": (row('1e-3,8,0,"0.5,0.1,100'), ":5: malformed CSV: a quotation mark"),
    "equal columns": (column("seed"), "duplicate column `seed`"),
    "short row": (row("1e-3,8"), ":5: expected 6 columns as in the header, found 2"),
    "long row": (row("1e-3,8,0,0.5,0.1,100,9"), ":5: expected 6 columns as in the header, found 7"),
    "nothing": (text(""), "no run to import"),
    "a header alone": (text(HEADER), "no run to import"),
    "a NUL": (column("batch\0size"), "a NUL character"),
    "only NaN": (text(f"{HEADER}1e-4,8,0,nan,0.1,100\n"), "nan is no measurement"),
    "truth as numbers": (row("1e-3,8,0,True,0.1,100"), "fewer than two objectives are certain"),
    "one metric": (
        text("learning_rate,accuracy\n1e-4,0.5\n2e-4,0.6\n"),
        "fewer than two objectives",
    ),
    "no known name": (text("a,b\n1,2\n3,4\n"), "nothing says which way is better of a, b"),
    "two losses": (text("learning_rate,eval_loss,train_loss\n1,2,3\n2,3,4\n"), "fewer than two"),
    "20,000 columns": (
        text(f"{','.join(f'c{i}' for i in range(20_000))}\n{','.join(['1'] * 20_000)}\n"),
        "no metric has a usual name",
    ),
    "JSON scalar": (text("3", "runs.json"), "expected a list of rows or one object per line"),
    "JSON cut": (text('[{"lr": 1, "acc', "runs.json"), "malformed JSON"),
    "JSON deep": (text("[" * 5000 + "]" * 5000, "runs.json"), "nested too deeply"),
    "equal keys": (text('[{"a": 1, "a": 2}]', "runs.json"), 'duplicate key "a"'),
    "half a character": (text(f'[{{{LR}, "\\ud800": 1}}]', "runs.json"), "lone surrogate \\ud800"),
    "no line of JSON": (text(f"{{{LR}}}\nnot json\n", "runs.jsonl"), ":2: malformed JSON"),
    "no database": (text(b"SQLite format 3\0" + bytes(50), "a.db"), "not a readable SQLite"),
    "another database": (other_database, "not a source of a known kind"),
    "random bytes": (text(bytes(range(256)) * 9, "a.db"), "not a source of a known kind"),
    "gzip": (text(gzip.compress(GOOD.encode()), "runs.csv.gz"), ".gz files are not read"),
    "a workbook": (text(b"PK\3\4", "runs.xlsx"), ".xlsx files are not read"),
    "no Parquet": (text(b"PAR1" + bytes(200), "runs.parquet"), "not a readable parquet file"),
    "an empty folder": (text("", "folder/.hidden"), "not a source of a known kind"),
    "a link to itself": (loop, "not a source of a known kind"),
    "a dangling link": (dangling, "cannot be read (No such file or directory)"),
    "nowhere": (lambda folder: folder / "runs.csv", "cannot be read (No such file or directory)"),
    "a pipe": (fifo, "neither a regular file nor a folder"),
    "a device": (lambda folder: Path("/dev/null"), "neither a regular file nor a folder"),
    "a journal cut": (text('{"op_code":0\n{"op_co', "a.log"), "not a source of a known kind"),
    "the harness: no number": (
        text('{"results": {"t": {"acc,none": "x"}}}', "lm/results_2026.json"),
        "one object without numbers",
    ),
    "the harness: another schema": (
        text('{"results": 3, "config": {}}', "lm/results_2026.json"),
        "fewer than two objectives",
    ),
    "W&B: no log": (
        text(b"\7" * 300, "wandb/offline-run-20260101_000000-abc/run-abc.wandb"),
        "not a log of W&B",
    ),
    "TensorBoard: damaged": (
        text(b"\7" * 100, "tb/events.out.tfevents.1.x"),
        "a damaged event file",
    ),
    "a trainer: another schema": (
        text('{"log_history": "x"}', "ck/checkpoint-1/trainer_state.json"),
        "expected the keys `log_history` and `global_step`",
    ),
    "MLflow: no YAML": (text("a: [b", "mlruns/0/meta.yaml"), "not a source of a known kind"),
    "a run of ours": (own_run, "a run of sweeper, which `sweeper front`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_source_is_one_message(case: str, tmp_path: Path, command: Command) -> None:
    make, said = REFUSED[case]
    answer = command("import", make(tmp_path), "--out", tmp_path / "out")
    assert answer.code == 2, answer.out
    assert said in answer.err
    assert answer.err.startswith("error: ") and len(answer.err.splitlines()) == 1
    assert not (tmp_path / "out" / "run.json").exists()


COUNTED: dict[str, tuple[Make, int, str]] = {
    "nothing wrong": (text(GOOD), 0, "3 of 3 rows imported"),
    "BOM": (text(GOOD, encoding="utf-8-sig"), 0, "3 of 3 rows imported"),
    "line ends of old": (text(GOOD.replace("\n", "\r")), 0, "3 of 3 rows imported"),
    "NaN": (row("1e-3,8,0,nan,0.1,100"), 1, "`accuracy`: nan is no measurement"),
    "infinite": (row("1e-3,8,0,inf,0.1,100"), 1, "`accuracy`: inf is no measurement"),
    "missing": (row("1e-3,8,0,,0.1,100"), 1, "`accuracy`: missing"),
    "per cent among shares": (row("1e-3,8,0,55,0.1,100"), 1, "55 is outside its range [0, 1]"),
    "a rate below 0": (row("1e-3,8,0,0.5,-0.1,100"), 1, "-0.1 is outside its range [0, 1]"),
    "a run twice": (row("1e-4,8,0,0.9,0.9,100"), 1, "the same settings and seed as runs.csv:2"),
    "half a sample": (row("1e-3,8,0,0.5,0.1,100.5"), 1, "`n`: found 100.5; a whole number"),
    "no sample": (row("1e-3,8,0,0.5,0.1,0"), 1, "`n`: found 0; at least 1"),
    "a long setting": (row(f"1e-3,{'x' * 10_001},0,0.5,0.1,100"), 1, "a text of 10,001 characters"),
    "a setting of the most": (row(f"1e-3,{'x' * 10_000},0,0.5,0.1,100"), 0, "4 of 4 rows imported"),
    "a whole number of 30 digits": (row(f"1e-3,{'9' * 30},0,0.5,0.1,100"), 0, "4 of 4 rows"),
    "orders to the terminal": (row("1e-3,\x1b]0;x\x07,0,0.5,0.1,100"), 0, "4 of 4 rows"),
    "orders in a name": (column("batch\x1b[31m_size"), 0, "3 of 3 rows imported"),
    "HTML": (column("<script>alert(1)</script>"), 0, "3 of 3 rows imported"),
    "a path": (column("../../etc/passwd"), 0, "3 of 3 rows imported"),
    "a line end in a name": (column('"batch\nsize"'), 0, "3 of 3 rows imported"),
    "NaN in JSON": (
        text(
            f'[{{{LR}, "accuracy": NaN, "unsafe_rate": 0.1}}, '
            '{"learning_rate": 2e-4, "accuracy": 0.5, "unsafe_rate": 0.1}]',
            "runs.json",
        ),
        1,
        "nan is no measurement",
    ),
}


@pytest.mark.parametrize("case", COUNTED)
def test_what_cannot_be_used_is_left_out_and_counted(
    case: str, tmp_path: Path, command: Command
) -> None:
    make, refused, said = COUNTED[case]
    out = tmp_path / "out"
    answer = command("import", make(tmp_path), "--out", out)
    assert answer.code == 0, answer.err
    assert said in answer.out
    lines = (out / "refused.jsonl").read_text(encoding="utf-8").splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"where", "reason"}] * refused
    for name in ("front", "recommend", "report"):
        answer = command(name, out)
        assert answer.code == 0, answer.err
        assert "\x1b]0;x" not in answer.out
    assert "<script>alert" not in (out / "report.html").read_text(encoding="utf-8")


def test_a_guess_that_is_no_whole_map_is_left_to_be_completed(
    tmp_path: Path, command: Command
) -> None:
    """And one that was completed is not replaced."""
    source, out = (
        text("learning_rate,f1,harm\n1e-4,0.5,3\n2e-4,0.6,4\n")(tmp_path),
        tmp_path / "out",
    )
    answer = command("import", source, "--out", out)
    map_ = out / "import.yaml"
    assert answer.code == 2 and f"then import with --map {map_}" in answer.err
    guess = yaml.safe_load(map_.read_text(encoding="utf-8"))
    assert guess["objectives"] == ["f1"]
    guess["metrics"]["harm"] = {"column": "harm", "direction": "minimize"}
    whole = yaml.safe_dump({**guess, "objectives": ["f1", "harm"]})
    map_.write_text(whole, encoding="utf-8")
    assert command("import", source, "--out", out).code == 2
    assert map_.read_text(encoding="utf-8") == whole
    answer = command("import", source, "--out", out, "--map", map_)
    assert answer.code == 0 and "2 of 2 rows imported" in answer.out, answer.err
