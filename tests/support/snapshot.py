"""The wording of a surface, kept in a file: `tests/PACKAGE/snapshots/NAME.txt`.

A snapshot is the one place where a test looks at prose; all other tests assert codes and values. After a
change of words, `SWEEPER_UPDATE_SNAPSHOTS=1 pytest PATH` writes the files anew: read their diff.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

UPDATE = "SWEEPER_UPDATE_SNAPSHOTS"

PASSING = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?", "TIME"),
    (r"/tmp/[^\s'\"`:,;()]*", "PATH"),
)
"""What differs between two honest runs of the same test, and what is written for it."""


def masked(text: str, mask: Mapping[object, str]) -> str:
    """A text in which `mask`, whose keys are taken as text, and times are replaced."""
    for found in sorted(map(str, mask), key=len, reverse=True):
        text = text.replace(found, {str(key): word for key, word in mask.items()}[found])
    for pattern, word in PASSING:
        text = re.sub(pattern, word, text)
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(lines) + "\n"


class Snapshot:
    """Compares texts with the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, text: str, mask: Mapping[object, str] | None = None) -> None:
        """A text is the one in `NAME.txt`, after `mask` (such as `{tmp_path: "FOLDER"}`).

        Raises:
            AssertionError: another text, or there is no such file; never where files are updated.
        """
        path, found = self._folder / f"{name}.txt", masked(text, mask or {})
        if os.environ.get(UPDATE) == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(found, encoding="utf-8")
        assert path.is_file(), f"no snapshot {path}: run the test with {UPDATE}=1 and read the file"
        assert found == path.read_text(encoding="utf-8"), f"differs from {path}; see {UPDATE}"
