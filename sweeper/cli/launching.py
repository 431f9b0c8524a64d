"""The command that sends a sweep to a cluster."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import show
from sweeper.cli.commands import app
from sweeper.cli.options import SetOption, SpecArgument
from sweeper.data.load import check_prefetched
from sweeper.errors import LaunchError, MissingExtraError, SweeperError
from sweeper.launch import TARGETS, Prepared, Target, options_of, prepare, submit, write
from sweeper.spec import SweepSpec, load_spec


@app.command(rich_help_panel="Sweeps")
def launch(
    spec: SpecArgument,
    on: Annotated[str, typer.Option("--on", help=f"Target: {', '.join(TARGETS)}.")],
    out: Annotated[
        Path | None, typer.Option(help="The run folder here; runs/NAME where not given.")
    ] = None,
    set_: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written; write nothing.")
    ] = False,
    templates: Annotated[
        Path | None, typer.Option(help="A folder with your own copies of templates of jobs/.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="ray: the dashboard of the cluster.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(help="A folder that all nodes share and this machine cannot see."),
    ] = None,
    working_dir: Annotated[
        str | None,
        typer.Option(help="ray: code to send; what git lists, without weights and secrets."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines with GPUs; 1.")] = None,
    gpus_per_node: Annotated[int | None, typer.Option(help="slurm, kuberay; 1.")] = None,
    cpus_per_node: Annotated[int | None, typer.Option(help="slurm, kuberay.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="kuberay: of a worker; 64Gi. slurm: of a node; all of it, unless shared."
        ),
    ] = None,
    time: Annotated[str | None, typer.Option(help="slurm: the walltime; 24:00:00.")] = None,
    partition: Annotated[str | None, typer.Option(help="slurm.")] = None,
    account: Annotated[str | None, typer.Option(help="slurm.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="slurm: a further option of sbatch, such as --sbatch=--qos=high."),
    ] = None,
    shared: Annotated[
        bool | None,
        typer.Option("--shared", help="slurm: a part of each node; the rest is for other jobs."),
    ] = None,
    image: Annotated[str | None, typer.Option(help="kuberay: with sweeper and Ray.")] = None,
    namespace: Annotated[str | None, typer.Option(help="kuberay.")] = None,
    claim: Annotated[
        str | None, typer.Option(help="kuberay: a ReadWriteMany volume claim.")
    ] = None,
    token_secret: Annotated[
        str | None, typer.Option(help="kuberay: the Secret with the key `token`; huggingface.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="kuberay: the LocalQueue of Kueue.")] = None,
    pod_patch: Annotated[
        str | None,
        typer.Option(help="kuberay: YAML merged into the pods, with `head` and `worker`."),
    ] = None,
    accelerators: Annotated[str | None, typer.Option(help="skypilot: such as H100:8.")] = None,
    bucket: Annotated[str | None, typer.Option(help="skypilot: for one machine.")] = None,
    volume: Annotated[str | None, typer.Option(help="skypilot: a shared file system.")] = None,
    package: Annotated[str | None, typer.Option(help="skypilot: what pip installs.")] = None,
    spot: Annotated[bool | None, typer.Option("--spot/--no-spot", help="skypilot.")] = None,
    retries: Annotated[int | None, typer.Option(help="Restarts after the first start.")] = None,
) -> None:
    """Launch a sweep on a cluster: write its job into RUN/launch and submit it."""
    target = _target(on)
    given = {
        "address": address,
        "storage": storage,
        "working_dir": working_dir,
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "cpus_per_node": cpus_per_node,
        "memory": memory,
        "time": time,
        "partition": partition,
        "account": account,
        "sbatch": tuple(sbatch) if sbatch else None,
        "shared": shared,
        "image": image,
        "namespace": namespace,
        "claim": claim,
        "token_secret": token_secret,
        "queue": queue,
        "pod_patch": pod_patch,
        "accelerators": accelerators,
        "bucket": bucket,
        "volume": volume,
        "package": package,
        "spot": spot,
        "retries": retries,
    }
    options = options_of(target, given)
    loaded = load_spec(spec, set_ or ())
    prepared = prepare(loaded, target, options, out or Path("runs") / loaded.name, templates)
    if dry_run:
        _print(prepared)
        return
    _check(loaded, target)
    write(prepared)
    show.line(f"written: {', '.join(str(path) for path in prepared.files)}")
    if prepared.sent is not None:
        show.line(prepared.sent.describe())
    if prepared.step.check:
        show.line(f"check on the cluster: {shlex.join(prepared.step.check)}")
    show.line(submit(prepared).text)
    show.line(
        f"the run folder on the cluster is {prepared.out}; the same command continues the run"
    )


def _check(spec: SweepSpec, target: Target) -> None:
    """Find here what `sweeper plan` finds, before machines are paid for; name what cannot be looked at.

    Slurm's nodes see the files of this machine, and download nothing.

    Raises:
        DataError, ModelError: what no trial could use, or what is not in the cache of such a node.
    """
    from sweeper.runs.plans import ABSENT, plan  # It needs pandas.

    if target == "slurm":
        check_prefetched(spec.model, spec.data, spec.evaluation)
    try:
        missing = plan(spec).estimate_missing
    except (
        SweeperError
    ) as error:  # Epochs are counted in rows and with packages that may be there only.
        elsewhere = isinstance(error, MissingExtraError) or error.code in ABSENT
        if target == "slurm" or not elsewhere:
            raise
        missing = str(error)
    if missing is not None:
        show.line(f"not checked before the job runs: {missing}")


def _target(on: str) -> Target:
    for target in TARGETS:
        if target == on:
            return target
    raise LaunchError(f"--on: found {on!r}, expected one of {', '.join(TARGETS)}")


def _print(prepared: Prepared) -> None:
    for path, text in prepared.files.items():
        show.line(f"--- {path}")
        show.line(text.rstrip("\n"))
    for path, origin in prepared.copies.items():
        show.line(f"--- {path}: a copy of {origin}")
    if prepared.sent is not None:
        show.line(f"--- {prepared.sent.describe()}")
    if prepared.wheel is not None:
        show.line(f"--- {prepared.wheel.name}: a wheel of {prepared.wheel.source}")
    if prepared.step.check:
        show.line(f"--- check on the cluster: {shlex.join(prepared.step.check)}")
    show.line(f"--- then: {shlex.join(prepared.step.command)}")
