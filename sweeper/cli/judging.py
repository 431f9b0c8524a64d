"""Commands about judges: keyword lists compared with people's labels, and judging a run again."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from sweeper.cli import show
from sweeper.cli.commands import app
from sweeper.cli.options import JsonOption, RunArgument, open_run
from sweeper.cli.overlay import MOST_ROWS
from sweeper.data.labelled import read_labelled
from sweeper.errors import JudgeError
from sweeper.judges import (
    METRICS,
    Judge,
    KeywordJudge,
    Scored,
    SuiteCount,
    read_scored,
)
from sweeper.judges import rescore as judge_again
from sweeper.keywords.evaluation import Evaluation, Proportion, evaluate_lists
from sweeper.keywords.lists import keyword_list_names, load_keyword_list
from sweeper.metrics import metric_text
from sweeper.runs.command_outputs import (
    CalibrateOutput,
    JudgedConfiguration,
    JudgedRate,
    JudgesOutput,
    RescoreOutput,
)
from sweeper.store.records import Metric, TrialRecord

if TYPE_CHECKING:  # It needs pandas.
    from sweeper.runs.run import Run

OPTIONS: dict[str, tuple[str, ...]] = {
    "keyword": (),
    "local": ("format", "revision", "device", "batch_size", "labels", "response_only"),
    "http": ("format", "base_url", "api_key_env", "concurrency", "requests_per_minute", "timeout"),
}
"""Kind of judge -> its options."""


judges = typer.Typer(
    name="judges", help="How well keyword lists agree with people.", no_args_is_help=True
)
app.add_typer(judges, rich_help_panel="Judges")


@judges.callback()
def about() -> None:
    """Compare keyword lists with people's labels."""


@judges.command()
def calibrate(
    labelled: Annotated[
        Path, typer.Argument(help="A CSV with the columns prompt, completion, final_label.")
    ],
    json_: JsonOption = False,
) -> None:
    """Compare every keyword list with people's labels of completions (2 and 3 are refusals)."""
    lists = [load_keyword_list(name) for name in keyword_list_names()]
    found = evaluate_lists(read_labelled(labelled), lists)
    if json_:
        show.data(CalibrateOutput.of(found))
    else:
        _print_calibration(found)


@app.command(rich_help_panel="Judges")
def rescore(
    run: RunArgument,
    judge: Annotated[
        str | None,
        typer.Option(metavar="KIND:WHAT", help="keyword:LIST, local:MODEL or http:MODEL."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="local: llama-guard-3, harmbench, wildguard, classifier. http: words, llama-guard-3.",
        ),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="http: the API, with its /v1.")] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="http: the environment variable with the key; OPENAI_API_KEY."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="http: requests at once; 8.")
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(min=0.001, help="http: requests a minute; unlimited.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="http: seconds to wait for an answer; 60.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="local: revision of a Hub id.")] = None,
    device: Annotated[str | None, typer.Option(help="local: auto, cpu or cuda.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="local: responses at once; 8.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="classifier: LABEL_1=unsafe,LABEL_0=safe; also refusal, compliance."),
    ] = None,
    response_only: Annotated[
        bool | None,
        typer.Option("--response-only", help="classifier: trained on responses without prompts."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Judge the stored responses of a run again; without --judge, show the judges of the run."""
    opened = open_run(run)
    given: dict[str, Any] = {
        "format": format_,
        "base_url": base_url,
        "api_key_env": api_key_env,
        "concurrency": concurrency,
        "requests_per_minute": requests_per_minute,
        "timeout": timeout,
        "revision": revision,
        "device": device,
        "batch_size": batch_size,
        "labels": labels,
        "response_only": response_only,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if judge is not None:
        _rescore(opened, make_judge(judge, options), json_)
    elif options:
        raise JudgeError(f"{_written(options)} needs --judge with the judge it configures")
    else:
        _show_judges(opened, json_)


def _rescore(opened: "Run", judge: Judge, json_: bool) -> None:
    records = opened.records
    first = opened.spec.evaluation.keyword_lists[0]
    with Progress(console=show.err, disable=not show.err.is_terminal) as bar:
        task = bar.add_task(escape(f"asking {judge.name}"), total=None)
        scored = judge_again(
            opened.folder,
            records,
            judge,
            first,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    by_key = {record.key: record for record in records}
    if json_:
        rows = _configuration_rows(scored, by_key)
        show.data(RescoreOutput(judge=judge.name, digest=judge.digest, configurations=tuple(rows)))
        return
    _print_configurations(scored, by_key, first)
    _print_judges(scored, records, first)
    cut = sum(counts.cut for item in scored for counts in item.suites.values())
    if cut:
        show.line(
            f"{cut} responses were truncated once their keyword verdicts were known, and cannot be "
            f"judged; a sweep with evaluation.stop_generation_early: false generates all of them in full"
        )
    judged_by = f"{judge.name}@{judge.digest[:8]}"
    command = shlex.join(["sweeper", "front", str(opened.folder.root), "--judge", judged_by])
    show.line(f"next: {command}")


def _show_judges(opened: "Run", json_: bool) -> None:
    scored, records = read_scored(opened.folder).values(), opened.records
    if json_:
        show.data(JudgesOutput(judges=tuple(_judge_rows(scored, records))))
    elif scored:
        _print_judges(scored, records, opened.spec.evaluation.keyword_lists[0])
    else:
        show.line("no judge has judged this run yet; name one with --judge")


def make_judge(argument: str, options: Mapping[str, Any]) -> Judge:
    """The judge given on the command line.

    Raises: JudgeError: an unknown kind, no name, or an option that is missing or belongs to another kind.
        DataError: no such keyword list.
        ModelError: a local model that cannot be loaded.
    """
    kind, _, what = argument.partition(":")
    if kind not in OPTIONS or not what:
        raise JudgeError(
            f"--judge must be keyword:LIST, local:MODEL or http:MODEL, but got `{argument}`"
        )
    foreign = {name: options[name] for name in options if name not in OPTIONS[kind]}
    if foreign:
        raise JudgeError(f"{_written(foreign)}: not an option of a {kind} judge; leave it out")
    make: Mapping[str, Callable[[str, dict[str, Any]], Judge]] = {
        "keyword": lambda what, options: KeywordJudge(what),
        "local": _local,
        "http": _http,
    }
    return make[kind](what, dict(options))


def _local(model: str, options: dict[str, Any]) -> Judge:
    from sweeper.judges.formats import FORMATS

    format_ = options.pop("format", None)
    if format_ != "classifier" and format_ not in FORMATS:
        raise JudgeError(
            f"a local judge needs --format, one of {', '.join(FORMATS)}, classifier, but got "
            f"{'none' if format_ is None else f'`{format_}`'}"
        )
    from sweeper.judges.local import ClassifierJudge, GenerativeJudge

    if format_ == "classifier":
        return ClassifierJudge(model, **(options | _labels(options.pop("labels", None))))
    if foreign := {name: 0 for name in options if name in ("labels", "response_only")}:
        raise JudgeError(f"{_written(foreign)}: only for --format classifier; leave it out")
    return GenerativeJudge(model, FORMATS[format_], **options)


def _labels(text: str | None) -> dict[str, dict[str, str]]:
    """`A=unsafe,B=safe` as a mapping."""
    pairs = [] if text is None else [part.rpartition("=") for part in text.split(",")]
    if not all(name.strip() and meaning.strip() for name, _, meaning in pairs):
        raise JudgeError(f"--labels must look like LABEL_1=unsafe,LABEL_0=safe, but got `{text}`")
    return {"labels": {name.strip(): meaning.strip() for name, _, meaning in pairs}}


def _http(model: str, options: dict[str, Any]) -> Judge:
    from sweeper.judges.remote import HttpJudge

    if "base_url" not in options:
        raise JudgeError(
            "an http judge needs --base-url, the address of an OpenAI-compatible API with its /v1: "
            "prompts and responses are sent there"
        )
    names = {"format": "format_", "requests_per_minute": "per_minute"}
    return HttpJudge(model, **{names.get(name, name): value for name, value in options.items()})


def _written(options: Mapping[str, Any]) -> str:
    """Options as they are written."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in options)


def _print_judges(
    scored: Iterable[Scored], records: Sequence[TrialRecord], keyword_list: str
) -> None:
    """Every judge of the run, with its coverage and its agreement with the keyword list."""
    table = Table(title="Judges of this run, over all configurations", title_justify="left")
    for name in ("judge", "asked", "rate"):
        table.add_column(name)
    for name in ("judged", "coverage", "cut short", f"agrees with {keyword_list}"):
        table.add_column(name, justify="right")
    for row in _judge_rows(scored, records):
        cells = [
            _rate(row.judged, row.responses),
            f"{row.coverage:.4f}",
            f"{row.cut}",
            _rate(row.same, row.judged),
        ]
        name = f"{row.judge}@{row.digest[:8]}"
        table.add_row(escape(name), escape(row.about), row.rate, *cells)
    show.fit(table)


def _judge_rows(scored: Iterable[Scored], records: Sequence[TrialRecord]) -> list[JudgedRate]:
    """One row per judge and rate; coverage includes records it has not judged."""
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
            total = max(
                sum(i.responses for i in found), sum(i.n or 0 for i in due if i is not None)
            )
            judged = sum(item.judged for item in found)
            rows.append(
                JudgedRate(
                    judge=name,
                    about=about,
                    digest=digest,
                    rate=METRICS[suite],
                    responses=total,
                    judged=judged,
                    coverage=judged / total if total else 0.0,
                    cut=sum(item.cut for item in found),
                    same=sum(item.same for item in found),
                )
            )
    return rows


def _print_configurations(
    scored: Sequence[Scored], records: Mapping[tuple[str, int], TrialRecord], keyword_list: str
) -> None:
    """The rates of one judge for each configuration, beside those of the keyword list."""
    table = Table(title=escape(f"{scored[0].judge}, per configuration"), title_justify="left")
    for name in ("configuration", "seed", "rate"):
        table.add_column(name)
    for name in (f"by {keyword_list}", "by the judge", "unanswered", "coverage", "cut short"):
        table.add_column(name, justify="right")
    rows = _configuration_rows(scored, records)
    for row in rows[:MOST_ROWS]:
        cells = [_rate(row.list_k, row.list_n), _rate(row.k, row.n)]
        cells += [f"{row.unanswered}", f"{row.coverage:.4f}", f"{row.cut}"]
        table.add_row(row.config_id, f"{row.seed}", row.rate, *cells)
    show.fit(table)
    if len(rows) > MOST_ROWS:
        show.line(f"... and {len(rows) - MOST_ROWS} more; --json has them all")


def _configuration_rows(
    scored: Iterable[Scored], records: Mapping[tuple[str, int], TrialRecord]
) -> list[JudgedConfiguration]:
    """One row per configuration, seed and rate."""
    rows = []
    for item in scored:
        record = records[item.config_id, item.seed]
        for suite, counts in item.suites.items():
            stored: Metric | None = record.metrics.get(METRICS[suite])
            found = SuiteCount(record, suite, counts)
            rows.append(
                JudgedConfiguration(
                    config_id=item.config_id,
                    seed=item.seed,
                    rate=METRICS[suite],
                    list_k=None if stored is None else stored.k,
                    list_n=None if stored is None else stored.n,
                    k=found.positive,
                    n=found.prompts,
                    unanswered=found.unanswered,
                    coverage=found.coverage,
                    cut=counts.cut,
                    same=counts.same,
                )
            )
    return rows


def _rate(k: int | None, n: int | None) -> str:
    """`0.8 % (2/256)`; `none` where n is 0."""
    return f"{metric_text('unsafe_rate', k / n)} ({k}/{n})" if n and k is not None else "none"


def _print_calibration(found: Evaluation) -> None:
    """Each keyword list against people, best first, with 95 % intervals."""
    table = Table(title="Agreement with people (95 % Wilson intervals)", title_justify="left")
    table.add_column("list")
    for name in ("agreement", "false refusals", "missed refusals", "n"):
        table.add_column(name, justify="right")
    for item in found.lists:
        shares = [_share(item.agreement), _share(item.false_refusals), _share(item.missed_refusals)]
        table.add_row(escape(item.name), *shares, f"{item.agreement.n}")
    show.fit(table)
    show.line(f"counted apart: {found.empty} empty and {found.degenerate} repetitive completions")


def _share(share: Proportion) -> str:
    if share.rate is None or share.interval is None:
        return "none"
    low, high = share.interval
    return f"{share.k}/{share.n} = {share.rate:.3f} ({low:.3f} to {high:.3f})"
