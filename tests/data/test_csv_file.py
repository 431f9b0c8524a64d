"""CSV files, whole and damaged: no row is silently swallowed, cut or overwritten."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.command import Command
from support.data_samples import SHARED, needs_real_rows, source
from support.raising import raises

from sweeper.data.files import read_column, read_file
from sweeper.data.labelled import read_labelled
from sweeper.data.load import load_prompts

ROWS = [f"wrap box {i},use tape {i}" for i in range(6)]


def written(folder: Path, content: str | bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(*rows: str, header: str = "prompt,completion") -> str:
    return "\n".join([header, *rows, ""])


def replaced(index: int, row: str, *others: tuple[int, str]) -> str:
    rows = list(ROWS)
    for place, text in ((index, row), *others):
        rows[place] = text
    return table(*rows)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (replaced(2, 'wrap box 2,"say it'), 4),  # Never closed.
        (replaced(2, 'wrap box 2,"say it', (4, 'wrap box 4,"quoted" end')), 4),
        (replaced(2, 'wrap box 2,"say it', (4, 'wrap box 4,"quoted"')), 4),
        (replaced(2, 'wrap box 2,"say it', (4, 'wrap box 4,the end"')), 4),
        (replaced(2, '"wrap box 2,say it', (4, 'wrap box 4",the end')), 4),
        (replaced(2, 'wrap box 2,"say it', (3, 'wrap box 3,",then"')), 4),
        (replaced(2, r'wrap box 2,"say \"hi\" and wrap"'), 4),
        (replaced(2, r'wrap box 2,"say \"hi\", and wrap"'), 4),
        (replaced(2, r'wrap box 2,"say \"hi\""'), 4),
        (replaced(2, 'wrap box 2,say "hi" and wrap'), 4),
        (replaced(2, 'wrap box 2, "say it"'), 4),
        (replaced(2, 'wrap box 2,"say it" '), 4),
        (replaced(2, 'wrap box 2,5" tape'), 4),
        (replaced(5, 'wrap box 2,"say it'), 7),
        (table('"a', "b,c", header='"prompt,completion'), 1),
        (replaced(2, "wrap box 2"), 4),
        (replaced(2, "wrap box 2,a,b"), 4),
        (table("a,b,c", header="prompt,completion,prompt"), 1),
        (table("a;b;c", header="prompt;completion;prompt"), 1),
        ("\n\n" + replaced(2, "wrap box 2"), 6),
        (replaced(2, 'wrap box 2,"one\r\n\r\ntwo"', (4, "wrap")), 8),
    ],
)
def test_a_damaged_row_is_refused_with_the_line_on_which_it_begins(
    tmp_path: Path, content: str, line: int
) -> None:
    path = written(tmp_path, content)
    with raises("data.malformed", path=path, line=line):
        read_file(path)


@pytest.mark.parametrize("column", range(4))
def test_rows_with_an_empty_last_cell_are_not_swallowed(tmp_path: Path, column: int) -> None:
    rows = [[f"{i}", f"wrap box {i}", "safe", ""] for i in range(6)]
    rows[2][column] = f'"{rows[2][column]}'
    for last in (3, 4):
        damaged = [list(row) for row in rows]
        damaged[last][column] += '"'
        text = table(*map(",".join, damaged), header="id,prompt,label,note")
        with raises("data.malformed", line=4):
            read_file(written(tmp_path, text))


def test_commas_do_not_separate_the_cells_of_a_tsv_file(tmp_path: Path) -> None:
    path = written(tmp_path, "prompt\tnote, free\na, b\tc\n", "a.tsv")
    assert read_file(path) == [{"prompt": "a, b", "note, free": "c"}]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    content = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with raises("data.unreadable") as caught:
        read_file(written(tmp_path, content, name))
    assert "git lfs pull" in str(caught.value)


def test_a_nul_and_utf_16_are_refused(tmp_path: Path) -> None:
    nul = written(tmp_path, replaced(2, "wrap box 2,use\0tape"))
    with raises("data.unreadable", path=nul, line=4):
        read_file(nul)
    bare = written(tmp_path, table(*ROWS).encode("utf-16-le"), "b.csv")
    with raises("data.unreadable", path=bare, line=1):
        read_file(bare)
    marked = written(tmp_path, table(*ROWS).encode("utf-16"), "c.csv")
    with pytest.raises(Exception, match=r"c\.csv: UTF-16; convert the file to UTF-8$"):
        read_file(marked)


@pytest.mark.parametrize(
    "content",
    [
        table("a,b", "c,d"),
        "\ufeff" + table("a,b", "c,d"),
        "\n\r\n  \n" + table("a,b", "", "  ", "c,d", "", ""),
        table("a,b", "c,d").replace("\n", "\r\n"),
        table("a,b", "c,d").replace("\n", "\r"),
        table("a;b", "c;d", header="prompt;completion"),
        table("a\tb", "c\td", header="prompt\tcompletion"),
        table("a,b,,", "c,d,,", header="prompt,completion,,"),
        table('"a","b"', '"c","d"', header='"prompt","completion"'),
    ],
)
def test_dialects_of_the_same_rows_are_read_alike(tmp_path: Path, content: str) -> None:
    found = read_file(written(tmp_path, content))
    assert [(row["prompt"], row["completion"]) for row in found] == [("a", "b"), ("c", "d")]


LEGAL = [
    ["Write a poem.", "Roses are red,\nviolets are blue,\nand so, my dear,\nare you."],
    ["Say it.", 'He said "wrap it, now",\nand left.\n\nThe end, "he" said.'],
    ["Sum,\nplease", "Anna: 80,000\nBob: 120,000"],
    ["Code?", "```\nf(a,b)\ng(c)\n```\nThat, in short, is it."],
    ["First line,\nsecond line", '"quoted"'],
    ["Table", "name,age\nAnna,3\nBob,4\n\nAll are young."],
    ["CRLF", "one\r\ntwo, three\r\n"],
    ["A table that ends the answer", "name,age\nAnna,3\nBob,4"],
    ["Mend this", "def f(x,y):\n    return g(x,y)\nf(1,2)"],
    ["values = [\n1,\n2,\n3]", "A list."],
    ["A long document", "word " * 40_000],
]
"""Rows with cells over several lines, as `csv.writer` and pandas write them."""


def quoted(columns: Sequence[str], rows: Sequence[Sequence[Any]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([columns, *rows])
    return text.getvalue()


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ("sep=;\r\nprompt, short;completion\r\na;b\r\n", {"prompt, short": "a", "completion": "b"}),
        ('"sep=|"\nprompt|completion\n"a|b"|c;d\n', {"prompt": "a|b", "completion": "c;d"}),
        ("SEP=\t\nprompt\tcompletion\na\tb,c\n", {"prompt": "a", "completion": "b,c"}),
        ("sep=,\nprompt;x,completion\na,b\n", {"prompt;x": "a", "completion": "b"}),
        ("prompt|completion\na, b|c; d\n", {"prompt": "a, b", "completion": "c; d"}),
        ('"prompt, short";completion\na;b\n', {"prompt, short": "a", "completion": "b"}),
        ('"a|b",c;d\n1,2\n', {"a|b": "1", "c;d": "2"}),
        ("sep=x\na\n", {"sep=x": "a"}),
    ],
)
def test_what_separates_cells_is_stated_or_seen_in_the_header(
    tmp_path: Path, content: str, cells: dict[str, str]
) -> None:
    assert read_file(written(tmp_path, content)) == [cells]


def test_a_header_with_several_marks_is_refused_unless_the_first_line_says(tmp_path: Path) -> None:
    header = "prompt;completion|note"
    with raises("data.malformed", line=2) as caught:
        read_file(written(tmp_path, f"\n{header}\na;b|c\n"))
    assert "`;` or `|`" in str(caught.value) and "`sep=;`" in str(caught.value)
    path = written(tmp_path, f"sep=;\n{header}\na;b|c\n")
    assert read_file(path) == [{"prompt": "a", "completion|note": "b|c"}]
    with raises("data.malformed", line=3):
        read_file(written(tmp_path, f"sep=;\n{header}\na;b;c\n"))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_legal_cells_over_several_lines_are_read(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path, quoted(["prompt", "completion"], LEGAL, delimiter))
    assert [list(row.values()) for row in read_file(path)] == LEGAL
    path = written(tmp_path, quoted(["a", "b", "c"], [[*row, "x"] for row in LEGAL], delimiter))
    assert [list(row.values())[:2] for row in read_file(path)] == LEGAL


@needs_real_rows
def test_real_rows_with_several_lines_survive_as_csv(tmp_path: Path) -> None:
    for name in ("alpaca_1k.json", "dolly_387.jsonl"):
        rows = read_file(SHARED / name)
        names = list(rows[0])
        for columns in (names, [names[0], names[2]]):
            cells = [[row[column] for column in columns] for row in rows]
            path = written(tmp_path, quoted(columns, cells))
            assert [list(row.values()) for row in read_file(path)] == cells


def test_a_suite_and_labelled_completions_lose_no_row(tmp_path: Path, command: Command) -> None:
    prompts = ['"A ""b"" c?"', '"First?', "Second?", "Third?", '"Last?"']
    with raises("data.malformed", line=3):
        load_prompts(source(written(tmp_path, table(*prompts, header="prompt")), "prompts"))
    with raises("data.malformed", line=2):
        read_column(written(tmp_path, "\n".join(prompts)), "prompt")
    rows = ["p1,Sure here,1_x", 'p2,"I said no,2_x', "p3,I cannot,2_x", 'p4,"Sure",1_x']
    path = written(tmp_path, table(*rows, header="prompt,completion,final_label"))
    with raises("data.malformed", path=path, line=3):
        read_labelled(path)
    exit_code, out, err = command("judges", "calibrate", path)
    assert (exit_code, out) == (2, "")
    assert err.startswith(f"error: {path}:3: malformed CSV: ") and err.count("\n") == 1


def test_a_cell_may_be_longer_than_the_limit_of_the_csv_module(tmp_path: Path) -> None:
    (row,) = read_file(written(tmp_path, table("a," + "x" * 200_000)))
    assert (row["prompt"], len(row["completion"])) == ("a", 200_000)
