"""Pages of the documentation that code, sweep files and messages name are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("sweeper", "search_spaces", "jobs", "benchmarks")


def test_every_page_that_the_source_names_exists() -> None:
    named = {
        (page, path.relative_to(ROOT).as_posix())
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".j2", ".sh", ".md")
        for page in re.findall(r"\bdocs/[\w/-]+\.(?:md|ipynb)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert [item for item in sorted(named) if not (ROOT / item[0]).is_file()] == []
