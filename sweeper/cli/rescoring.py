"""The command that has stored responses judged again, without training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from sweeper.cli import show, show_judges
from sweeper.cli.options import JsonOption, RunArgument, app
from sweeper.errors import JudgeError
from sweeper.judges import Judge, KeywordJudge, read_scored
from sweeper.judges import rescore as judge_again

if TYPE_CHECKING:  # It needs a package that reading commands do without.
    from sweeper.runs.run import Run

OPTIONS: dict[str, tuple[str, ...]] = {
    "keyword": (),
    "local": ("format", "revision", "device", "batch_size", "labels", "response_only"),
    "http": ("format", "base_url", "api_key_env", "concurrency", "requests_per_minute", "timeout"),
}
"""Kind of judge -> the options that mean something to it."""


@app.command()
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
        float | None, typer.Option(min=0.001, help="http: requests a minute; no limit.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="http: seconds to wait for an answer; 60.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="local: of a hub id.")] = None,
    device: Annotated[str | None, typer.Option(help="local: auto, cpu or cuda.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="local: responses at once; 8.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="classifier: LABEL_1=unsafe,LABEL_0=safe; also refusal, compliance."),
    ] = None,
    response_only: Annotated[
        bool | None, typer.Option("--response-only", help="classifier: it reads no prompts.")
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Have a judge look at the stored responses of a run; without one, show who has judged it."""
    from sweeper.runs.run import open_run

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
        raise JudgeError(f"{_written(options)}: options of a judge; name it with --judge")
    else:
        _show_judges(opened, json_)


def _rescore(opened: "Run", judge: Judge, json_: bool) -> None:
    records = opened.records()
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
        rows = show_judges.configuration_rows(scored, by_key)
        show.data({"judge": judge.name, "digest": judge.digest, "configurations": rows})
        return
    show_judges.configurations(scored, by_key, first)
    show_judges.judges(scored, records, first)
    cut = sum(counts.cut for item in scored for counts in item.suites.values())
    if cut:
        show.line(
            f"{cut} responses were cut short when their keyword verdicts were known, and cannot be judged "
            "as whole ones; a sweep with evaluation.stop_generation_early: false keeps all of them whole"
        )
    show.line(f"next: sweeper front {opened.folder.root} --judge {judge.name}@{judge.digest[:8]}")


def _show_judges(opened: "Run", json_: bool) -> None:
    scored, records = read_scored(opened.folder).values(), opened.records()
    if json_:
        show.data({"judges": show_judges.judge_rows(scored, records)})
    elif scored:
        show_judges.judges(scored, records, opened.spec.evaluation.keyword_lists[0])
    else:
        show.line("nobody has judged this run yet; name a judge with --judge")


def make_judge(argument: str, options: Mapping[str, Any]) -> Judge:
    """The judge a command line names.

    Raises:
        JudgeError: an unknown kind, no name, or an option that is missing or another kind's.
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
        raise JudgeError(f"{_written(foreign)}: no options of a {kind} judge; leave them out")
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
        raise JudgeError(f"{_written(foreign)}: for --format classifier alone; leave it out")
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
