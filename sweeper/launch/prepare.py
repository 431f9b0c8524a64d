"""From a sweep and options to files below RUN/launch, and the step that submits them."""

import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from sweeper.errors import LaunchError
from sweeper.launch.fit import check_trial
from sweeper.launch.inputs import Located, located
from sweeper.launch.kuberay import RayJobName, named, patch_pods, run_label
from sweeper.launch.options import PLAIN_PATH, Options, Target
from sweeper.launch.sent import Sent, code_files, data_files, measure
from sweeper.launch.slurm import CPUS_PER_GPU, slurm_values
from sweeper.launch.templates import Raw, Values, fill_script, fill_yaml, template
from sweeper.launch.wheel import Wheel, build_wheel, released, wheel_of_source
from sweeper.spec import SweepSpec, dump_spec
from sweeper.store.folder import RunFolder, write_atomic
from sweeper.task import EIGHT_BIT

CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "SWEEPER_CACHE")
"""Environment variables of the caches of `prefetch`, passed to jobs that see this machine's files."""

STORAGE = {"kuberay": "/mnt/sweeper", "skypilot": "/sweeper"}
"""Mount point of shared storage in pods and cloud machines."""

RETRIES = {"slurm": 20, "kuberay": 3, "skypilot": 3}

CLOUD_EXTRAS = ("train", "cluster", "eval")

SENT = "sweeper-launch"
"""Folder of the sent files on a cloud machine, below its home."""

POD_MEMORY = "64Gi"

SECRET_NAME = "huggingface"  # noqa: S105 - the name of a Secret of Kubernetes

ADDRESS = "http://127.0.0.1:8265"


@dataclass(frozen=True)
class Step:
    """How a launch is submitted: a command, and the tool that runs it.

    `submission_id` is set for a Ray job, which is submitted through Ray's own client; `rayjob` for KubeRay.
    `check` is a command that has the cluster look at the files and changes nothing.
    """

    tool: str
    command: tuple[str, ...]
    submission_id: str | None = None
    address: str | None = None
    rayjob: RayJobName | None = None
    check: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """The files of a launch, and how it is submitted.

    `files` are texts by path; `copies` are files of this machine by the path they go to, and `sent` sums up
    what leaves this machine.
    `wheel` is built from the running sweeper into the sent folder, from which the machines install it.
    """

    target: Target
    run: Path
    out: str
    files: Mapping[Path, str]
    copies: Mapping[Path, Path]
    step: Step
    entrypoint: str = ""
    wheel: Wheel | None = None
    sent: Sent | None = None


@dataclass(frozen=True)
class _Launch:
    """The common inputs of the four targets."""

    spec: SweepSpec
    run: Path
    options: Options
    own: Path | None

    @property
    def folder(self) -> Path:
        return RunFolder(self.run).launch

    @property
    def staged(self) -> Path:
        return self.folder / "working_dir"

    def text(self, name: str) -> str:
        return template(name, self.own)


def prepare(
    spec: SweepSpec, target: Target, options: Options, run: Path, own: Path | None = None
) -> Prepared:
    """Render everything of a launch; nothing is written.

    Args:
        spec: The sweep.
        target: Where to.
        options: From `options_of` for the same target.
        run: The run folder on this machine.
        own: A folder with the user's own templates, under the names they have in `jobs/`.

    Raises:
        LaunchError: the cluster cannot see files of the sweep, too much would be sent, a trial needs more
            than a machine has, or a path or template is invalid.
    """
    makers: dict[Target, Callable[[_Launch], Prepared]] = {
        "ray": _ray,
        "slurm": _slurm,
        "kuberay": _kuberay,
        "skypilot": _skypilot,
    }
    check_trial(spec, target, options)
    return makers[target](_Launch(spec, run.resolve(), options, own))


def write(prepared: Prepared) -> None:
    """Write the files of a launch, in place of those of an earlier one; the run itself is not touched.

    Raises:
        RunFolderError: the run folder cannot be written to.
        LaunchError: no wheel of the running sweeper can be built.
    """
    folder = RunFolder(prepared.run)
    folder.create()
    staged = folder.launch / "working_dir"
    shutil.rmtree(staged, ignore_errors=True)
    for path, text in prepared.files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
    for path, origin in prepared.copies.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, path)
    if prepared.wheel is not None:
        build_wheel(prepared.wheel, staged)


def _run_command(out: str) -> str:
    words = ["python", "-m", "sweeper", "run", f"{out}/launch/spec.yaml", "--out", out]
    return shlex.join(words)


def _there(launch: _Launch, storage: str) -> str:
    return f"{storage.rstrip('/')}/runs/{launch.spec.name}"


def _short(name: str, most: int) -> str:
    """A unique DNS label of at most `most` characters."""
    label = re.sub(r"[^a-z0-9]+", "-", f"sweeper-{name}").strip("-")
    if len(label) <= most and label == f"sweeper-{name}":
        return label
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{label[: most - 7].rstrip('-')}-{digest}"


def _plain(path: Path) -> str:
    if PLAIN_PATH.fullmatch(str(path)) is None:
        raise LaunchError(
            f"sbatch cannot be given the path {str(path)!r}; choose one of letters, digits and "
            "_ . + @ = , - with --out",
            code="launch.path",
            path=path,
        )
    return str(path)


class _Sending(NamedTuple):
    """The sent folder: texts, copies of files of this machine, and names that look like secrets."""

    files: dict[Path, str]
    copies: dict[Path, Path]
    secrets: list[str]

    def measure(self, staged: Path) -> Sent:
        """See `sweeper.launch.sent.measure`."""
        names = {str(path.relative_to(staged)): origin for path, origin in self.copies.items()}
        return measure(names, tuple(self.secrets))


def _sending(launch: _Launch, found: Located) -> _Sending:
    """The sweep file and its data in the sent folder."""
    sending = _Sending({launch.staged / "spec.yaml": dump_spec(found.spec)}, {}, [])
    for name, path in found.inputs.items():
        place = launch.staged / "inputs" / name
        if path.is_dir():
            listed = data_files(path)
            sending.copies.update({place / inner: file for inner, file in listed.files.items()})
            sending.secrets.extend(f"{path.name}/{inner}" for inner in listed.secrets)
        else:
            sending.copies[place] = path
    return sending


def _add_code(launch: _Launch, code: Path, sending: _Sending) -> None:
    if not code.is_dir():
        raise LaunchError(
            f"--working-dir: {code} is not a folder", code="launch.not_a_folder", path=code
        )
    listed = code_files(code.resolve())
    sending.secrets.extend(listed.secrets)
    for name, path in listed.files.items():
        if name != "spec.yaml" and not name.startswith("inputs/"):
            sending.copies[launch.staged / name] = path


def _ray(launch: _Launch) -> Prepared:
    storage = launch.options.storage
    out = str(launch.run) if storage is None else _there(launch, storage)
    found = located(launch.spec, out, storage, carry=True)
    sending = _sending(launch, found)
    if launch.options.working_dir is not None:
        _add_code(launch, Path(launch.options.working_dir), sending)
    files, copies, _ = sending
    sent = sending.measure(launch.staged)
    there = shlex.quote(f"{out}/launch")
    names = "spec.yaml inputs" if found.inputs else "spec.yaml"
    entrypoint = f"mkdir -p {there} && cp -R {names} {there}/ && exec {_run_command(out)}"
    environment = launch.folder / "ray.yaml"
    values: Values = {"working_dir": str(launch.staged)}
    files[environment] = fill_yaml(launch.text("ray.yaml"), values)
    submission = f"{_short(launch.spec.name, 48)}-{hashlib.sha256(out.encode()).hexdigest()[:8]}"
    address = launch.options.address or os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS
    command = (
        *("ray", "job", "submit", "--address", address, "--submission-id", submission),
        *("--runtime-env", str(environment), "--no-wait", "--", "bash", "-c", entrypoint),
    )
    step = Step("ray", command, submission, address)
    script = shlex.join(command[-3:])
    return Prepared("ray", launch.run, out, files, copies, step, script, sent=sent)


def _slurm(launch: _Launch) -> Prepared:
    """Slurm keeps the batch script; what it reads later lies in a folder of its content's name.

    So a job that is requeued reads what it was submitted with, whatever has been launched since.
    """
    options = launch.options
    run = Path(_plain(launch.run))
    text = dump_spec(located(launch.spec, str(run), None, carry=False).spec)
    content = f"{text}{options}{sys.executable}{launch.text('slurm_node.sh')}"
    digest = hashlib.sha256(content.encode()).hexdigest()
    place = launch.folder / f"files-{digest[:8]}"
    batch, node = launch.folder / "slurm.sh", place / "slurm_node.sh"
    command = ("python", "-m", "sweeper", "run", str(place / "spec.yaml"), "--out", str(run))
    values: Values = {
        **slurm_values(options),
        "name": f"sweeper-{launch.spec.name}-{hashlib.sha256(str(run).encode()).hexdigest()[:8]}",
        "log": str(launch.folder / "slurm-%j.log"),
        "bin": str(Path(sys.executable).parent),
        "folder": str(launch.folder),
        "node_script": str(node),
        "run": str(run),
        "command": Raw(shlex.join(command)),
        "retries": RETRIES["slurm"] if options.retries is None else options.retries,
        **{name.lower(): os.environ.get(name) or None for name in CACHES},
    }
    files = {
        place / "spec.yaml": text,
        batch: fill_script(launch.text("slurm.sh"), values),
        node: fill_script(launch.text("slurm_node.sh"), values),
    }
    return Prepared("slurm", run, str(run), files, {}, Step("sbatch", ("sbatch", str(batch))))


def _kuberay(launch: _Launch) -> Prepared:
    options = launch.options
    storage = options.storage or STORAGE["kuberay"]
    out = _there(launch, storage)
    found = located(launch.spec, out, storage, carry=False)
    words = ["python", "-m", "sweeper", "run", "/etc/sweeper/spec.yaml", "--out", out]
    label = run_label(f"{options.claim}:{out}")
    values: Values = {
        "run_label": label,
        "queue": options.queue,
        "namespace": options.namespace,
        "spec": dump_spec(found.spec),
        "command": shlex.join(words),
        "retries": RETRIES["kuberay"] if options.retries is None else options.retries,
        "ray_version": _installed("ray"),
        "image": options.image,
        "hf_home": f"{storage}/huggingface",
        "token_secret": options.token_secret or SECRET_NAME,
        "storage": storage,
        "claim": options.claim,
        "nodes": options.nodes,
        "cpus": options.cpus_per_node or CPUS_PER_GPU * max(1, options.gpus_per_node),
        "memory": options.memory or POD_MEMORY,
        "gpus": options.gpus_per_node,
    }
    patch = None if options.pod_patch is None else Path(options.pod_patch)
    text = launch.text("kuberay.yaml")
    name, filled = named(
        lambda name: patch_pods(fill_yaml(text, {**values, "name": name}), patch),
        _short(launch.spec.name, 38),
    )
    manifest = launch.folder / "kuberay.yaml"
    apply = ("kubectl", "apply", "-f", str(manifest))
    step = Step(
        "kubectl",
        apply,
        rayjob=RayJobName(name, label, options.namespace),
        check=(*apply, "--dry-run=server"),
    )
    return Prepared("kuberay", launch.run, out, {manifest: filled}, {}, step)


def _skypilot(launch: _Launch) -> Prepared:
    options = launch.options
    storage = options.storage or STORAGE["skypilot"]
    out = _there(launch, storage)
    found = located(launch.spec, out, storage, carry=True)
    sending = _sending(launch, found)
    files, copies, _ = sending
    sent = sending.measure(launch.staged)
    name = _short(launch.spec.name, 40)
    wheel = None if options.package else wheel_of_source()
    values: Values = {
        "name": name,
        "accelerators": options.accelerators,
        "spot": options.spot,
        "retries": RETRIES["skypilot"] if options.retries is None else options.retries,
        "nodes": options.nodes,
        "hf_home": f"{storage}/huggingface",
        "working_dir": str(launch.staged),
        "storage": storage,
        "bucket": options.bucket,
        "volume": options.volume,
        "token": bool(os.environ.get("HF_TOKEN")),  # SkyPilot rejects a secret without a value.
        "package": options.package or _package(launch.spec, wheel),
        "out": out,
        "command": Raw(_run_command(out)),
    }
    secret = ("--secret", "HF_TOKEN") if values["token"] else ()
    task = launch.folder / "skypilot.yaml"
    files[task] = fill_yaml(launch.text("skypilot.yaml"), values)
    words = ("sky", "jobs", "launch", "--yes", "--name", name, *secret, str(task))
    step = Step("sky", words)
    return Prepared("skypilot", launch.run, out, files, copies, step, wheel=wheel, sent=sent)


def _package(spec: SweepSpec, wheel: Wheel | None) -> str:
    """What pip installs on a machine without sweeper, with the extras that the sweep needs."""
    quantized = spec.tuning.quantized or not set(EIGHT_BIT).isdisjoint(spec.optimizers)
    needed = {"qlora": quantized, "trackers": bool(spec.compute.trackers)}
    extras = ",".join((*CLOUD_EXTRAS, *(name for name, wanted in needed.items() if wanted)))
    if wheel is None:
        name, _, version = released().partition("==")
        return f"{name}[{extras}]=={version}"
    return Raw(f'"$HOME"/{SENT}/{shlex.quote(f"{wheel.name}[{extras}]")}')


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
