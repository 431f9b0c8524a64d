"""Writes what a simulation measured, with the date, hardware, versions and commit."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sweeper.store.provenance import git_commit, hardware, package_versions


def keep(path: Path, **measured: Any) -> None:
    """Write the fields of a result as JSON, after where and when they were measured."""
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count(), "words": "2 cores, no GPU"},
        "versions": package_versions(),
        "git_commit": git_commit(),
        **measured,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
