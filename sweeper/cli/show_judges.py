"""What commands print about judges: tables of verdicts, and what rates stand on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeper.cli import show
from sweeper.judges import METRICS, RejudgedRecords, Scored, SuiteCount
from sweeper.store.records import Metric, TrialRecord

MOST_ROWS = 40


def overlay(judged: RejudgedRecords | None, to: Console = show.out) -> None:
    """Whose rates were shown and how far they reach; every record they do not reach by name."""
    if judged is None:
        return
    lines = [judged.summary]
    lines += [
        f"unscored: {i.config_id} seed {i.seed}: {i.why}" for i in judged.unscored[:MOST_ROWS]
    ]
    if len(judged.unscored) > MOST_ROWS:
        lines.append(f"... and {len(judged.unscored) - MOST_ROWS} more")
    for line in lines:
        to.print(line, markup=False, soft_wrap=True)


def judges(scored: Iterable[Scored], records: Sequence[TrialRecord], keyword_list: str) -> None:
    """Every judge that has judged the run: how much of it, and how it agrees with the keyword list."""
    table = Table(title="Judges of this run, over all configurations", title_justify="left")
    for name in ("judge", "asked", "rate"):
        table.add_column(name)
    for name in ("judged", "coverage", "cut short", f"agrees with {keyword_list}"):
        table.add_column(name, justify="right")
    for row in judge_rows(scored, records):
        cells = [
            _share(row["judged"], row["responses"]),
            f"{row['coverage']:.4f}",
            f"{row['cut']}",
            _share(row["same"], row["judged"]),
        ]
        name = f"{row['judge']}@{row['digest'][:8]}"
        table.add_row(escape(name), escape(row["about"]), row["rate"], *cells)
    show.fit(table)


def judge_rows(scored: Iterable[Scored], records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The same as data: one row per judge and rate; coverage counts records it never saw."""
    measured = [item for item in records if item.status in ("complete", "unscored")]
    by_judge: dict[tuple[str, str], dict[tuple[str, int], Scored]] = {}
    for item in scored:
        key = item.config_id, item.seed
        by_judge.setdefault((item.judge, item.digest), {})[key] = item
    rows = []
    for (name, digest), mine in sorted(by_judge.items()):
        about = next(iter(mine.values())).about
        for suite in [s for s in METRICS if any(s in item.suites for item in mine.values())]:
            counts = [mine[r.key].suites.get(suite) for r in measured if r.key in mine]
            found = [item for item in counts if item is not None]
            due = [record.metrics.get(METRICS[suite]) for record in measured]
            total = max(sum(i.responses for i in found), sum(i.n for i in due if i is not None))
            judged = sum(item.judged for item in found)
            rows.append(
                {
                    "judge": name,
                    "about": about,
                    "digest": digest,
                    "rate": METRICS[suite],
                    "responses": total,
                    "judged": judged,
                    "coverage": judged / total if total else 0.0,
                    "cut": sum(item.cut for item in found),
                    "same": sum(item.same for item in found),
                }
            )
    return rows


def configurations(
    scored: Sequence[Scored], records: Mapping[tuple[str, int], TrialRecord], keyword_list: str
) -> None:
    """What one judge found in each configuration, beside the keyword list's rate."""
    table = Table(title=escape(f"{scored[0].judge}, per configuration"), title_justify="left")
    for name in ("configuration", "seed", "rate"):
        table.add_column(name)
    for name in (f"by {keyword_list}", "by the judge", "coverage", "cut short"):
        table.add_column(name, justify="right")
    rows = configuration_rows(scored, records)
    for row in rows[:MOST_ROWS]:
        cells = [_share(row["list_k"], row["list_n"]), _share(row["k"], row["n"])]
        cells += [f"{row['coverage']:.4f}", f"{row['cut']}"]
        table.add_row(row["config_id"], f"{row['seed']}", row["rate"], *cells)
    show.fit(table)
    if len(rows) > MOST_ROWS:
        show.line(f"... and {len(rows) - MOST_ROWS} more; --json has them all")


def configuration_rows(
    scored: Iterable[Scored], records: Mapping[tuple[str, int], TrialRecord]
) -> list[dict[str, Any]]:
    """The same as data: one row per configuration, seed and rate."""
    rows = []
    for item in scored:
        record = records[item.config_id, item.seed]
        for suite, counts in item.suites.items():
            stored: Metric | None = record.metrics.get(METRICS[suite])
            rows.append(
                {
                    "config_id": item.config_id,
                    "seed": item.seed,
                    "rate": METRICS[suite],
                    "list_k": None if stored is None else stored.k,
                    "list_n": None if stored is None else stored.n,
                    "k": counts.positive,
                    "n": counts.judged,
                    "coverage": SuiteCount(record, suite, counts).coverage,
                    "cut": counts.cut,
                    "same": counts.same,
                }
            )
    return rows


def _share(k: int | None, n: int | None) -> str:
    """`2/256 = 0.8 %`; of nothing there is no share."""
    return f"{k}/{n} = {100 * k / n:.1f} %" if n and k is not None else "none"
