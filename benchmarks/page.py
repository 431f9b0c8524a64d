"""What the report costs by its size: bytes, seconds to write, seconds until a browser can use it.

`python benchmarks/page.py` makes synthetic records (no model produced them), writes the
report of each size, opens it in Chromium, and writes results/page.json.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scale import HERE, SPEC, laid_out, made_up, shared_provenance

from sweeper.report import write_report
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.provenance import git_commit, hardware, package_versions
from sweeper.store.records import TrialRecord

RESULTS = HERE.parent / "results" / "page.json"
SIZES = (226, 1000, 10000)
TARGETS_MB = {226: 4.0, 1000: 8.0, 10000: 15.0}
"""With responses, which are up to 4 MiB before they are compressed; these records have none."""

STEPS = """async () => {
  const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)));
  const decided = async id => {
    const plot = document.getElementById(id);
    while (plot.getAttribute("aria-busy") === "true") await frame();
  };
  const view = id => {
    views.open(document.getElementById(id));
    document.getElementById(id).scrollIntoView({block: "center", behavior: "instant"});
  };
  let seen;
  while (!(seen = performance.getEntriesByName("first-contentful-paint")[0])) await frame();
  const opened = performance.now();
  view("front");
  await decided("front");
  const chart = performance.now() - opened;
  const timed = async work => {
    const begin = performance.now();
    await work();
    await frame();
    return (performance.now() - begin) / 1000;
  };
  const {domInteractive, domContentLoadedEventEnd, loadEventEnd} =
    performance.getEntriesByType("navigation")[0];
  const ids = page.data("configurations").ids;
  const head = document.querySelectorAll("#all thead button")[2];
  const filter = document.getElementById("filter");
  const select = given => timed(async () => {
    page.select(given, "benchmark");
    await decided("front");
  });
  return {
    text: domContentLoadedEventEnd / 1000,
    loaded: loadEventEnd / 1000,
    first: seen.startTime / 1000,
    chart: chart / 1000,
    sort: await timed(() => head.click()),
    filter: await timed(() => {
      filter.value = "unsafe_rate<0.05 ema";
      filter.dispatchEvent(new Event("input"));
    }),
    select: await select(ids.slice(0, 30)),
    clear: await select(null),
    parallel: await timed(async () => {
      view("parallel");
      await decided("parallel");
    }),
    configurations: ids.length,
  };
}"""


def records_of(spec_text: str, count: int) -> tuple[SweepSpec, list[TrialRecord]]:
    """The controls and the first configurations of the synthetic sweep, whole trajectories first."""
    spec, _, tasks = laid_out(spec_text)
    provenance = shared_provenance(spec.evaluation.keyword_lists)
    pairs = [(task, item) for task in tasks for item in task.readouts]
    stride = max(1, len(pairs) // count)
    chosen = [pair for i, pair in enumerate(pairs) if pair[1].role == "base" or i % stride == 0]
    return spec, [made_up(task, item, provenance) for task, item in chosen[:count]]


def in_browser(path: Path) -> dict[str, Any]:
    """Seconds from navigation until the answer is painted (`first`) and text and tables work (`text`), and
    from opening Explore until the front is drawn (`chart`). Of use: with the front in view, `select` and
    `clear` end when it and the table show it; `parallel` is the drawing of the parallel coordinates once
    they come into view.
    """
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, names))), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(300_000)
        page.goto(path.resolve().as_uri(), timeout=300_000)
        found: dict[str, Any] = page.evaluate(STEPS)
        found["browser"] = browser.version
        browser.close()
    return found


def measure(count: int, folder: Path) -> dict[str, Any]:
    """One size."""
    spec, records = records_of(SPEC, count)
    path = folder / f"report-{count}.html"
    begin, before = time.perf_counter(), time.process_time()
    write_report(RunFolder(folder / "run"), records, spec, None, path)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - before
    return {"write": seconds, "cpu": cpu, "mb": path.stat().st_size / 1e6, **in_browser(path)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """One line per size."""
    names = (
        "write",
        "cpu",
        "first",
        "text",
        "chart",
        "sort",
        "filter",
        "select",
        "clear",
        "parallel",
    )
    lines = [f"{'configurations':>14}{'MB':>8}" + "".join(f"{name:>9}" for name in names)]
    for row in rows:
        seconds = "".join(f"{row[name]:>8.2f}s" for name in names)
        lines.append(f"{row['configurations']:>14}{row['mb']:>8.2f}{seconds}")
    return "\n".join(lines)


def main() -> None:
    """Measure all sizes, print the table, keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="write the reports to this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        rows = [measure(count, folder) for count in SIZES]
    print(table(rows))
    content = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {**hardware("cpu"), "cpus": os.cpu_count(), "load": os.getloadavg()},
        "versions": package_versions(),
        "git_commit": git_commit(),
        "targets_mb": TARGETS_MB,
        "sizes": rows,
    }
    RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
