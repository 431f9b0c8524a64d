"""Checks every node of a Ray cluster: a task on each says what it has; it is compared with this machine."""

import contextlib
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sweeper.data.sources import BUILTIN
from sweeper.launch.inputs import path_places
from sweeper.setup import node_probe
from sweeper.setup.doctor import Node
from sweeper.spec import SweepSpec
from sweeper.sweep.session import RaySession
from sweeper.task import ComputeSettings

SWEEPER = "sweeper-llm"

PACKAGES = (SWEEPER, "torch", "transformers", "peft", "ray")
"""What has to be the same everywhere, or workers read and compute something else."""

ANSWER_SECONDS = 120.0


def examine_nodes(address: str, out: Path, inputs: Mapping[str, str]) -> list[Node]:
    """Ask every living node, with a task pinned to it that takes no CPU, and compare with this machine.

    Args:
        address: The cluster, which is joined briefly.
        out: Where runs are to be written. An empty file is written and deleted by every node.
        inputs: Local paths and hub ids that every node must see, by what they are.

    Raises:
        SweeperError: the cluster cannot be joined.
    """
    ray.cloudpickle.register_pickle_by_value(node_probe)
    try:
        # Ray writes what it has to say about its workers to standard output, which is for the answer.
        with (
            contextlib.redirect_stdout(sys.stderr),
            RaySession(ComputeSettings(ray_address=address)) as session,
        ):
            session.wait()
            return _examine(out, inputs)
    finally:
        ray.cloudpickle.unregister_pickle_by_value(node_probe)


def inputs_of(spec: SweepSpec) -> dict[str, str]:
    """What every node must see of a sweep: local paths and hub ids, by their keys in the sweep file."""
    found = {}
    for where, block, key in path_places(spec.model_dump(mode="json", exclude_none=True)):
        path = str(block[key])
        if not path.startswith(BUILTIN):
            found[where] = str(Path(path).absolute()) if Path(path).exists() else path
    return found


def _examine(out: Path, inputs: Mapping[str, str]) -> list[Node]:
    alive = [node for node in ray.nodes() if node["Alive"]]
    token, folder = secrets.token_hex(6), str(out.absolute())
    marks = [f".sweeper-doctor-{token}-{number}" for number in range(len(alive) + 1)]
    ask = partial(node_probe.probe, PACKAGES, folder, dict(inputs))
    here = ask(marks[-1])
    try:
        answers = _on_each(alive, [partial(ask, mark) for mark in marks[:-1]])
        seen = _on_each(alive, [partial(node_probe.visible, folder, marks)] * len(alive))
    finally:
        _on_each(alive, [partial(node_probe.remove, folder, marks)] * len(alive))
        node_probe.remove(folder, marks)
    written = {
        mark
        for mark, answer in zip(marks, [*answers, here], strict=True)
        if isinstance(answer, dict) and not answer["error"]
    }
    found = []
    for node, answer, sight in zip(alive, answers, seen, strict=True):
        about = _about(node)
        if isinstance(answer, Exception) or isinstance(sight, Exception):
            error = answer if isinstance(answer, Exception) else sight
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            found.append(about._replace(problems=(f"no answer: {said}; look at its logs of Ray",)))
        else:
            found.append(compare(about, answer, here, len(written.difference(sight))))
    return found


def _about(node: Mapping[str, Any]) -> Node:
    """A node of `ray.nodes()` before it was asked."""
    has = node["Resources"]
    name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
    return Node(name, has.get("CPU", 0.0), has.get("GPU", 0.0))


def _on_each(nodes: Sequence[Mapping[str, Any]], calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of one call on each node, or the error of one that does not answer."""
    run = ray.remote(node_probe.call)
    running = [
        run.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(call)
        for node, call in zip(nodes, calls, strict=True)
    ]
    deadline = time.monotonic() + ANSWER_SECONDS
    return [_answer(reference, deadline) for reference in running]


def _answer(reference: Any, deadline: float) -> Any:
    try:
        return ray.get(reference, timeout=max(0.0, deadline - time.monotonic()))
    except RayError as error:  # A timeout, a node that has left, a worker that cannot start.
        return error


def compare(node: Node, answer: Mapping[str, Any], here: Mapping[str, Any], unseen: int) -> Node:
    """A node with what differs from this machine.

    Args:
        node: Its name and resources.
        answer: What `node_probe.probe` returned on it.
        here: What it returned on this machine.
        unseen: How many files that others wrote into the folder of the runs it does not see.
    """
    problems, notes = list(_version_problems(answer, here)), []
    build = answer["packages"].get("torch") or ""
    if node.gpus and build.endswith("+cpu"):
        problems.append(f"torch {build} cannot use its GPUs; install a CUDA build of torch")
    if answer["error"]:
        problems.append(f"{answer['folder']} cannot be written: {answer['error']}; set --out")
    elif unseen:
        problems.append(
            f"{answer['folder']} is not shared: {unseen} files of others are not to be seen; set --out to "
            "a folder that all nodes share"
        )
    for name, found in answer["inputs"].items():
        wanted = here["inputs"][name]
        if found == "not cached" and not answer["offline"]:
            notes.append(f"{name} is not in its cache and will be downloaded")
        elif wanted not in (found, "not cached"):
            problems.append(f"{name}: {found}, here {wanted}; copy it there, under the same path")
        elif found in ("missing", "not cached"):
            problems.append(f"{name}: {found}; run `sweeper prefetch SPEC` there")
    return node._replace(
        python=answer["python"],
        packages=answer["packages"],
        folder=answer["folder"],
        inputs=answer["inputs"],
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _version_problems(answer: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if _minor(answer["python"]) != _minor(here["python"]):
        yield f"python {answer['python']}, here {here['python']}; use the same version"
    for name in PACKAGES:
        found, wanted = answer["packages"][name], here["packages"][name]
        if _public(found) != _public(wanted):
            remedy = (
                f"`pip install '{name}=={_public(wanted)}'` there" if wanted else "remove it there"
            )
            yield f"{name} {found or 'not installed'}, here {wanted or 'not installed'}; {remedy}"
    same = answer["packages"][SWEEPER] == here["packages"][SWEEPER]
    if same and answer["code"] != here["code"]:
        yield "its sweeper has the same version and other code; install this one there"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _public(version: str | None) -> str | None:
    """A version without its build: 2.13.0+cpu and 2.13.0 compute the same."""
    return None if version is None else version.partition("+")[0]
