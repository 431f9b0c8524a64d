"""What `sweeper launch` renders: manifests against their schemas, scripts against a shell."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import Command, in_process
from support.raising import raises
from support.world import World, spec_text

from sweeper.errors import LaunchError
from sweeper.launch import TARGETS, Options, Prepared, Target, options_of, prepare, write
from sweeper.launch import wheel as wheels
from sweeper.launch.templates import Raw, fill_script, fill_yaml
from sweeper.launch.wheel import build_wheel
from sweeper.spec import SweepSpec, dump_spec, parse_spec, spec_hash

ROOT = Path(__file__).parents[2]

ENOUGH: dict[Target, dict[str, Any]] = {
    "ray": {},
    "slurm": {"nodes": 2, "gpus_per_node": 8, "partition": "gpu", "account": "a_1"},
    "kuberay": {"image": "registry/sweeper:1", "claim": "shared", "nodes": 2, "gpus_per_node": 8},
    "skypilot": {"accelerators": "H100:8", "bucket": "my-sweeps"},
}

HUB_SPEC = "llama32_1b_dolly_lora"


def hub_spec() -> SweepSpec:
    text = (ROOT / "search_spaces" / f"{HUB_SPEC}.yaml").read_text(encoding="utf-8")
    return parse_spec(text)


def rendered(target: Target, run: Path, spec: SweepSpec | None = None, **more: Any) -> Prepared:
    options = options_of(target, {**ENOUGH[target], **more})
    return prepare(spec or hub_spec(), target, options, run)


def text_of(prepared: Prepared, name: str) -> str:
    (found,) = [text for path, text in prepared.files.items() if path.name == name]
    return found


def documents(prepared: Prepared, name: str) -> list[Any]:
    return list(yaml.safe_load_all(text_of(prepared, name)))


# -- options ------------------------------------------------------------------------------------------


def test_every_option_reaches_the_command_line() -> None:
    import inspect

    from sweeper.cli.launching import launch

    assert {field.name for field in fields(Options)} <= set(inspect.signature(launch).parameters)


@pytest.mark.parametrize("target", TARGETS)
def test_the_least_options_are_accepted(target: Target) -> None:
    assert options_of(target, ENOUGH[target]).nodes == ENOUGH[target].get("nodes", 1)


@pytest.mark.parametrize(
    ("target", "given", "said"),
    [
        ("ray", {"partition": "gpu"}, "--partition belongs to --on slurm"),
        ("slurm", {"image": "x"}, "--image belongs to --on kuberay"),
        ("ray", {"spot": False}, "--no-spot belongs to --on skypilot"),
        ("kuberay", {"claim": "c"}, "--image is needed"),
        ("kuberay", {"image": "x"}, "--claim is needed"),
        ("skypilot", {"bucket": "abc"}, "--accelerators is needed"),
        ("skypilot", {"accelerators": "H100:8"}, "--bucket (one machine) or --volume"),
        ("skypilot", {"accelerators": "H100:8", "volume": "v"}, "add --no-spot, or --spot"),
        (
            "skypilot",
            {"accelerators": "H100:8", "bucket": "abc", "nodes": 2},
            "cannot be written by 2 machines",
        ),
        ("slurm", {"nodes": 0}, "--nodes: found 0, expected at least 1"),
        ("slurm", {"gpus_per_node": -1}, "--gpus-per-node: found -1, expected at least 0"),
        ("slurm", {"time": "soon"}, "--time: found 'soon', expected [days-]hours:minutes:seconds"),
        ("slurm", {"time": "00:04:59"}, "--time: found '00:04:59', expected at least 5 minutes"),
        ("ray", {"shared": True}, "--shared belongs to --on slurm"),
        ("slurm", {"partition": "gpu\n#SBATCH --uid=0"}, "--partition: found"),
        ("slurm", {"account": "a; rm -rf /"}, "--account: found 'a; rm -rf /'"),
        ("kuberay", {"image": "x", "claim": "A_B"}, "--claim: found 'A_B'"),
        ("kuberay", {"image": "x y", "claim": "c"}, "--image: found 'x y'"),
        ("kuberay", {"image": "x", "claim": "c", "storage": "/a/../b"}, "--storage: found"),
        ("ray", {"storage": "relative"}, "--storage: found 'relative'"),
        ("ray", {"address": "file:///etc/passwd"}, "--address: found 'file:///etc/passwd'"),
        ("kuberay", {"image": "x", "claim": "c", "memory": "64"}, "--memory: found '64'"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(
    target: Target, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        options_of(target, given)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--on {target}: ")


def test_all_wrong_options_are_in_one_message() -> None:
    with pytest.raises(LaunchError) as caught:
        options_of("kuberay", {"partition": "gpu", "memory": "much"})
    assert str(caught.value).count(";") == 3


@pytest.mark.parametrize(
    ("target", "key", "given", "most"),
    [
        ("slurm", "gpus", {"gpus_per_node": 4}, 4),
        ("slurm", "gpus", {}, 1),
        ("slurm", "cpus", {"cpus_per_node": 6}, 6),
        ("slurm", "cpus", {"shared": True, "gpus_per_node": 2}, 8),
        ("kuberay", "gpus", {"gpus_per_node": 2}, 2),
        ("kuberay", "cpus", {"gpus_per_node": 2}, 8),
        ("skypilot", "gpus", {"accelerators": "H100:8"}, 8),
        ("skypilot", "gpus", {"accelerators": "H100"}, 1),
    ],
)
def test_a_trial_larger_than_a_machine_is_refused(
    tmp_path: Path, target: Target, key: str, given: dict[str, Any], most: int
) -> None:
    spec = hub_spec()
    needed = {name: value for name, value in ENOUGH[target].items() if "node" not in name}
    options = options_of(target, {**needed, **given})

    def asking(count: int) -> SweepSpec:
        return parse_spec(dump_spec(spec), overrides=[f"compute.{key}_per_trial={count}"])

    prepare(asking(most), target, options, tmp_path)
    with raises("launch.trial_too_large", needed=most + 1, there=most):
        prepare(asking(most + 1), target, options, tmp_path)


def test_machines_of_unknown_size_are_left_to_the_sweep(tmp_path: Path) -> None:
    spec = parse_spec(dump_spec(hub_spec()), overrides=["compute.gpus_per_trial=8"])
    assert prepare(spec, "ray", options_of("ray", {}), tmp_path).files
    options = options_of("slurm", {"sbatch": ("--gres=gpu:a100:8",)})
    batch = prepare(spec, "slurm", options, tmp_path).files[tmp_path / "launch" / "slurm.sh"]
    assert "#SBATCH --gres=gpu:a100:8\n" in batch and "#SBATCH --gpus-per-node" not in batch
    assert "--cpu-bind=none" in batch


# -- templates ----------------------------------------------------------------------------------------


def test_a_value_stays_a_value_in_yaml() -> None:
    value = "x: {y} #\n- z; $(rm) {{ b }} \x85 'é' \\"
    text = "# Purpose: x\na: {{ a }}\n{{ a }}: 1\nb: {c: {{ a }}}\nd: |\n{{ d | block(2) }}\n"
    filled = fill_yaml(text, {"a": value, "d": "e: 1\n  f\n\n#g\n"})
    assert filled.splitlines()[0] == "# Purpose: x"
    assert yaml.safe_load(filled) == {
        "a": value,
        value: 1,
        "b": {"c": value},
        "d": "e: 1\n  f\n\n#g\n",
    }


def test_a_value_in_a_script_inside_yaml_is_one_word() -> None:
    text = "run: |\n  echo {{ a | sh }}\n"
    read = yaml.safe_load(fill_yaml(text, {"a": "x: {y}; $(rm) 'z'"}))
    assert shlex.split(read["run"]) == ["echo", "x: {y}; $(rm) 'z'"]
    with raises("launch.option"):
        fill_yaml(text, {"a": "x\nkey: value"})


def test_yaml_keeps_types_and_leaves_out_what_has_no_value() -> None:
    values = {"n": 3, "t": True, "z": None, "s": "7", "on": "on", "c": Raw("a && b"), "zero": 0}
    text = (
        "n: {{ n }}\nt: {{ t }}\n{% if z %}\nz: {{ z }}\n{% endif %}\ns: {{ s }}\no: {{ on }}\n"
        "c: run {{ c }}\nzero: {{ zero }}\n"
    )
    wanted = {"n": 3, "t": True, "s": "7", "o": "on", "c": "run a && b", "zero": 0}
    assert yaml.safe_load(fill_yaml(text, values)) == wanted


def test_a_script_quotes_and_leaves_out_what_has_no_value() -> None:
    text = "#SBATCH --x={{ a }}\necho {{ b }} {{ n }} ${#list[@]}\n{% if z %}\necho {{ z }}\n{% endif %}\n"
    filled = fill_script(text, {"a": "a_1", "b": "it's", "n": 2, "z": None})
    assert filled == "#SBATCH --x=a_1\necho 'it'\"'\"'s' 2 ${#list[@]}\n"


@pytest.mark.parametrize("fill", [fill_script, fill_yaml])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {{ what }}\n", "'what' is undefined; known names: a, none"),
        ("{% if what %}x{% endif %}\n", "'what' is undefined"),
        ("a: {{ none }}\n", "has no value here"),
        ("a: {{ a\n", "line 1 of a template"),
        ("\n{% if a %}\n", "line 2 of a template"),
        ("a: {{ a.__class__.__mro__ }}\n", "is unsafe.*known names"),
    ],
)
def test_a_wrong_template_is_an_error(
    fill: Callable[[str, Mapping[str, Any]], str], text: str, said: str
) -> None:
    with pytest.raises(LaunchError, match=said):
        fill(text, {"a": "x", "none": None})


def test_a_template_that_makes_no_yaml_is_an_error() -> None:
    with raises("launch.template", fault="yaml"):
        fill_yaml("a: [{{ a }}\n", {"a": 1})


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs").glob("*.[sy]*")), ids=lambda path: path.name
)
def test_every_template_begins_with_its_purpose_and_what_to_change(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[:20] if line.startswith("#")]
    assert any(line.startswith("# Purpose: ") for line in head)
    assert any(line.startswith("# Launch:  ") for line in head)
    assert any(line.startswith("# Change:  ") for line in head)


def test_there_are_five_templates_and_the_readme_names_each_target() -> None:
    names = sorted(path.name for path in (ROOT / "jobs").iterdir())
    assert names == [
        "Dockerfile",
        "README.md",
        "kuberay.yaml",
        "ray.yaml",
        "skypilot.yaml",
        "slurm.sh",
        "slurm_node.sh",
    ]
    readme = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    assert all(f"--on {target}" in readme for target in TARGETS)


def test_own_templates_take_the_place_of_shipped_ones(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "slurm.sh").write_text("#!/bin/bash\nmodule load {{ name }}\n", encoding="utf-8")
    prepared = prepare(hub_spec(), "slurm", options_of("slurm", {}), tmp_path / "run", own)
    name = rf"#!/bin/bash\nmodule load sweeper-{HUB_SPEC}-[0-9a-f]{{8}}\n"
    assert re.fullmatch(name, text_of(prepared, "slurm.sh"))
    assert "ray start --block" in text_of(prepared, "slurm_node.sh")
    with raises("launch.not_a_folder", path=tmp_path / "none"):
        prepare(hub_spec(), "slurm", options_of("slurm", {}), tmp_path / "run", tmp_path / "none")


# -- schemas ------------------------------------------------------------------------------------------


def keys(node: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all keys; `[]` for the items of a list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{path}{key}"
            yield from keys(value, f"{path}{key}.")
    elif isinstance(node, list):
        for item in node:
            yield from keys(item, f"{path[:-1]}[].")


RAYJOB_SPEC = {
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "rayClusterSpec": dict,
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "submissionMode": str,
    "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool,
    "suspend": bool,
}
"""Of RayJobSpec in KubeRay's ray-operator/apis/ray/v1/rayjob_types.go, what a sweep may use."""

GROUP = {"rayStartParams": dict, "template": dict}

WORKER_GROUP = {
    **GROUP,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
}

CONTAINER = {"name": str, "image": str, "resources": dict, "env": list, "volumeMounts": list}


def check(node: Mapping[str, Any], allowed: Mapping[str, type]) -> None:
    assert set(node) <= set(allowed)
    for key, value in node.items():
        assert type(value) is allowed[key], f"{key}: {value!r}"


def test_the_rayjob_is_one_by_the_schema(tmp_path: Path) -> None:
    config, job = documents(rendered("kuberay", tmp_path), "kuberay.yaml")
    assert (config["apiVersion"], config["kind"]) == ("v1", "ConfigMap")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?", job["metadata"]["name"])
    spec = job["spec"]
    check(spec, RAYJOB_SPEC)
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["backoffLimit"] == 3
    assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"env_vars"}
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    assert isinstance(cluster["rayVersion"], str)
    check(cluster["headGroupSpec"], GROUP)
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    (workers,) = cluster["workerGroupSpecs"]
    check(workers, WORKER_GROUP)
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 2
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        check(container, CONTAINER)
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert {"name": "storage", "persistentVolumeClaim": {"claimName": "shared"}} in pod[
            "volumes"
        ]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    worker = workers["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 8


def test_a_pod_gets_the_token_from_a_secret_and_from_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_0123456789")
    prepared = rendered("kuberay", tmp_path, token_secret="mine")
    _, job = documents(prepared, "kuberay.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
        (container,) = group["template"]["spec"]["containers"]
        (token,) = [item for item in container["env"] if item["name"] == "HF_TOKEN"]
        wanted = {"name": "mine", "key": "token", "optional": True}
        assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": wanted}}


def test_the_sweep_in_the_config_map_is_the_sweep(tmp_path: Path) -> None:
    config, job = documents(rendered("kuberay", tmp_path), "kuberay.yaml")
    assert spec_hash(parse_spec(config["data"]["spec.yaml"])) == spec_hash(hub_spec())
    words = shlex.split(job["spec"]["entrypoint"])
    out = f"/mnt/sweeper/runs/{HUB_SPEC}"
    assert words == ["python", "-m", "sweeper", "run", "/etc/sweeper/spec.yaml", "--out", out]


SKY_TASK = {
    "name": str,
    "resources": dict,
    "num_nodes": int,
    "envs": dict,
    "secrets": dict,
    "file_mounts": dict,
    "volumes": dict,
    "setup": str,
    "run": str,
}
"""Of SkyPilot's task schema (sky/utils/schemas.py), what a sweep may use."""


def test_the_sky_task_is_one_by_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_planted_0123456789")
    prepared = rendered("skypilot", tmp_path)
    (task,) = documents(prepared, "skypilot.yaml")
    check(task, SKY_TASK)
    recovery = {"strategy": "EAGER_NEXT_REGION", "max_restarts_on_errors": 3}
    wanted = {"accelerators": "H100:8", "use_spot": True, "job_recovery": recovery}
    assert task["resources"] == wanted
    assert task["secrets"] == {"HF_TOKEN": None}
    assert all(type(value) is str for value in task["envs"].values())
    assert task["file_mounts"]["/sweeper"] == {"name": "my-sweeps", "mode": "MOUNT_CACHED"}
    assert "volumes" not in task
    assert task["run"].splitlines()[1] == "~/sky_templates/ray/start_cluster"
    assert prepared.step.command[:4] == ("sky", "jobs", "launch", "--yes")
    assert prepared.step.command[-3:-1] == ("--secret", "HF_TOKEN")


def installed_by(prepared: Prepared) -> str:
    """What the machines of a SkyPilot task are to install, as their shell reads it."""
    (task,) = documents(prepared, "skypilot.yaml")
    script = task["setup"].replace("pip install", "printf '%s\\n'")
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": "/home/cloud"},
    )
    return done.stdout.strip()


def test_cloud_machines_install_a_wheel_of_the_sweeper_that_runs_here(tmp_path: Path) -> None:
    prepared = rendered("skypilot", tmp_path)
    wheel = f"sweeper_llm-{metadata.version('sweeper-llm')}-py3-none-any.whl"
    assert installed_by(prepared) == f"/home/cloud/sweeper-launch/{wheel}[train,cluster,eval]"
    write(prepared)
    built = tmp_path / "launch" / "working_dir" / wheel
    where = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--target"]
    done = subprocess.run([*pip, str(where), str(built)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = metadata.distributions(path=[str(where)])
    assert found.metadata["Name"] == "sweeper-llm"
    assert set(found.requires or ()) == set(metadata.requires("sweeper-llm") or ())
    assert (where / "sweeper" / "jobs" / "skypilot.yaml").is_file()


def test_trackers_of_a_sweep_are_installed_with_it(tmp_path: Path) -> None:
    spec = hub_spec()
    compute = replace(spec.compute, trackers=("mlflow",))
    prepared = rendered("skypilot", tmp_path, spec.model_copy(update={"compute": compute}))
    assert installed_by(prepared).endswith(".whl[train,cluster,eval,trackers]")


def test_a_sweep_in_4_bits_installs_bitsandbytes(tmp_path: Path) -> None:
    spec = hub_spec()
    tuning = replace(spec.tuning, method="qlora")
    prepared = rendered("skypilot", tmp_path, spec.model_copy(update={"tuning": tuning}))
    assert installed_by(prepared).endswith(".whl[train,cluster,eval,qlora]")


def test_what_to_install_can_be_given(tmp_path: Path) -> None:
    prepared = rendered("skypilot", tmp_path, package="git+https://example.org/a?b=$(id)")
    assert installed_by(prepared) == "git+https://example.org/a?b=$(id)"
    assert prepared.wheel is None


def test_an_installed_sweeper_is_installed_from_the_index_in_the_same_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "SOURCE", tmp_path / "site-packages")
    version = metadata.version("sweeper-llm")
    wanted = f"sweeper-llm[train,cluster,eval]=={version}"
    assert installed_by(rendered("skypilot", tmp_path)) == wanted


def test_a_source_tree_without_hatchling_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    with raises("launch.no_wheel", missing="hatchling"):
        rendered("skypilot", tmp_path)
    assert rendered("skypilot", tmp_path, package="x").wheel is None


def test_a_wheel_that_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    with raises("launch.no_wheel", path=tmp_path):
        build_wheel(wheels.Wheel(tmp_path, "sweeper_llm-1-py3-none-any.whl"), tmp_path / "to")


def test_several_cloud_machines_share_a_volume(tmp_path: Path) -> None:
    options = options_of(
        "skypilot", {"accelerators": "H100:8", "volume": "v", "nodes": 4, "spot": False}
    )
    (task,) = documents(prepare(hub_spec(), "skypilot", options, tmp_path), "skypilot.yaml")
    check(task, SKY_TASK)
    assert task["volumes"] == {"/sweeper": "v"}
    assert list(task["file_mounts"]) == ["~/sweeper-launch"]
    assert task["num_nodes"] == 4
    assert task["resources"]["use_spot"] is False
    assert "secrets" not in task or task["secrets"] == {"HF_TOKEN": None}


def test_the_runtime_environment_of_a_ray_job_is_one_by_its_schema(tmp_path: Path) -> None:
    prepared = rendered("ray", tmp_path)
    (found,) = documents(prepared, "ray.yaml")
    assert set(found) == {"working_dir", "env_vars", "config"}
    assert found["working_dir"] == str(tmp_path / "launch" / "working_dir")
    assert found["env_vars"] == {"HF_HUB_DISABLE_TELEMETRY": "1"}
    sent = [path.name for path in prepared.files if path.is_relative_to(found["working_dir"])]
    assert sent == ["spec.yaml"]


def sbatch_lines(text: str) -> dict[str, str]:
    lines = [
        line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")
    ]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_the_batch_script_asks_for_what_was_asked(tmp_path: Path) -> None:
    asked = sbatch_lines(text_of(rendered("slurm", tmp_path, time="2-00:30:00"), "slurm.sh"))
    assert re.fullmatch(rf"sweeper-{HUB_SPEC}-[0-9a-f]{{8}}", asked.pop("job-name"))
    assert asked == {
        "nodes": "2",
        "ntasks-per-node": "1",
        "exclusive": "",
        "mem": "0",
        "gpus-per-node": "8",
        "partition": "gpu",
        "account": "a_1",
        "time": "2-00:30:00",
        "signal": "B:USR1@300",
        "requeue": "",
        "dependency": "singleton",
        "open-mode": "append",
        "output": f"{tmp_path}/launch/slurm-%j.log",
    }


def test_a_batch_script_without_gpus_asks_for_none(tmp_path: Path) -> None:
    prepared = prepare(hub_spec(), "slurm", options_of("slurm", {"gpus_per_node": 0}), tmp_path)
    assert "gpus-per-node" not in sbatch_lines(text_of(prepared, "slurm.sh"))
    assert '--num-gpus="${SLURM_GPUS_ON_NODE:-0}"' in text_of(prepared, "slurm_node.sh")


def test_the_job_of_another_run_folder_has_another_name(tmp_path: Path) -> None:
    """Jobs of one name wait for each other."""
    one, again, other = (
        sbatch_lines(text_of(rendered("slurm", tmp_path / name), "slurm.sh"))["job-name"]
        for name in ("a", "a", "b")
    )
    assert one == again != other


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"exclusive": "", "mem": "0"}),
        ({"memory": "64Gi"}, {"exclusive": "", "mem": "64G"}),
        ({"shared": True, "gpus_per_node": 2}, {"cpus-per-task": "8"}),
        ({"shared": True, "gpus_per_node": 0}, {"cpus-per-task": "4"}),
        (
            {"shared": True, "cpus_per_node": 3, "memory": "500Mi"},
            {"cpus-per-task": "3", "mem": "500M"},
        ),
    ],
)
def test_a_part_of_a_node_is_a_few_cpus_per_gpu(
    tmp_path: Path, more: dict[str, Any], expected: dict[str, str]
) -> None:
    asked = sbatch_lines(text_of(rendered("slurm", tmp_path, **more), "slurm.sh"))
    kinds = ("exclusive", "mem", "cpus-per-task")
    assert {name: asked[name] for name in kinds if name in asked} == expected


@pytest.mark.parametrize(
    ("time", "lead"), [("00:05:00", 75), ("00:19:59", 299), ("00:20:00", 300), ("1-00:00:00", 300)]
)
def test_a_short_job_is_stopped_after_three_quarters(tmp_path: Path, time: str, lead: int) -> None:
    text = text_of(rendered("slurm", tmp_path, time=time), "slurm.sh")
    assert sbatch_lines(text)["signal"] == f"B:USR1@{lead}"


def test_options_of_sbatch_are_passed_on(tmp_path: Path) -> None:
    given = ("--qos=high", "--constraint=a100&[r1|r2]", "--contiguous")
    text = text_of(rendered("slurm", tmp_path, sbatch=given), "slurm.sh")
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert lines[-3:] == [f"#SBATCH {option}" for option in given]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("qos=high", "expected --NAME or --NAME=VALUE"),
        ("--comment=a b", "expected --NAME or --NAME=VALUE"),
        ("--comment=a\n#SBATCH --uid=0", "expected --NAME or --NAME=VALUE"),
        ("--comment='a'", "expected --NAME or --NAME=VALUE"),
        ("--time=1", "instead of --time use --time"),
        ("--cpus-per-task=1", "instead of --cpus-per-task use --cpus-per-node"),
        ("--array=1-3", "--array is set by the job itself"),
    ],
)
def test_an_option_of_sbatch_that_the_job_sets_is_refused(option: str, said: str) -> None:
    with pytest.raises(LaunchError) as caught:
        options_of("slurm", {"sbatch": (option,)})
    assert f"--sbatch: {'found' if 'expected' in said else said}" in str(caught.value)
    assert said in str(caught.value)


def test_a_later_launch_leaves_the_files_of_an_earlier_one(tmp_path: Path) -> None:
    """A job that is requeued reads what it was submitted with."""
    one, again = rendered("slurm", tmp_path), rendered("slurm", tmp_path)
    assert one.files == again.files
    other = rendered("slurm", tmp_path, nodes=3)
    changed = hub_spec().model_copy(update={"seeds": (7, 8)})
    third = rendered("slurm", tmp_path, changed)
    places = [
        {path for path in each.files if path.name != "slurm.sh"} for each in (one, other, third)
    ]
    assert all(len(place) == 2 for place in places)
    assert len(set.union(*places)) == 6


def test_a_node_without_the_environment_says_so_at_once(tmp_path: Path) -> None:
    path = tmp_path / "slurm_node.sh"
    text = text_of(rendered("slurm", tmp_path), "slurm_node.sh")
    path.write_text(text.replace(str(Path(sys.executable).parent), "/nowhere"), encoding="utf-8")
    done = subprocess.run(
        ["bash", str(path)],
        env={"PATH": "/usr/bin:/bin", "SWEEPER_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 127
    assert "no Ray in /nowhere; every node must see the environment" in done.stderr
    assert len(list(tmp_path.glob("failed-*"))) == 1


def test_jobs_that_start_on_a_node_at_once_have_ports_of_their_own(tmp_path: Path) -> None:
    """Before either Ray listens, as when it starts slowly."""
    script, bin_folder = tmp_path / "slurm_node.sh", tmp_path / "bin"
    text = text_of(rendered("slurm", tmp_path), "slurm_node.sh")
    script.write_text(
        text.replace(str(Path(sys.executable).parent), str(bin_folder)), encoding="utf-8"
    )
    bin_folder.mkdir()
    (bin_folder / "python").symlink_to(sys.executable)
    ray = bin_folder / "ray"
    ray.write_text('#!/bin/sh\necho "$@" >"$SWEEPER_STATE/ray"\nexec sleep 600\n', encoding="utf-8")
    ray.chmod(0o755)
    jobs, ports = [], []
    for name in ("one", "two"):
        state = tmp_path / name
        state.mkdir()
        environment = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "SWEEPER_STATE": str(state),
            "SWEEPER_HEAD_IP": "127.0.0.1",
            "RAY_TMPDIR": str(state / "tmp"),
            "SLURM_JOB_ID": "7",
            "SLURM_PROCID": "0",
            "SLURM_CPUS_ON_NODE": "1",
        }
        jobs.append(subprocess.Popen(["bash", script], env=environment, start_new_session=True))
        until = time.monotonic() + 60
        while not (state / "ray").exists() or not (state / "ray").read_text(encoding="utf-8"):
            assert time.monotonic() < until and jobs[-1].poll() is None
            time.sleep(0.05)
        port = (state / "port").read_text(encoding="utf-8").strip()
        assert f"--port={port} " in (state / "ray").read_text(encoding="utf-8")
        ports.append(int(port))
    for job in jobs:
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert abs(ports[1] - ports[0]) % 1000 == 0
    assert ports[1] != ports[0]


def test_nodes_are_offline_and_find_what_was_prefetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", "/scratch/it's here")
    monkeypatch.delenv("SWEEPER_CACHE", raising=False)
    text = text_of(rendered("slurm", tmp_path), "slurm.sh")
    exported = [line for line in text.splitlines() if line.startswith("export ")]
    assert "export HF_HUB_OFFLINE=1" in exported
    (home,) = [line for line in exported if line.startswith("export HF_HOME=")]
    assert shlex.split(home) == ["export", "HF_HOME=/scratch/it's here"]
    assert not any("SWEEPER_CACHE" in line for line in exported)


@pytest.mark.parametrize("name", ["slurm.sh", "slurm_node.sh"])
def test_scripts_pass_bash_and_shellcheck(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(text_of(rendered("slurm", tmp_path), name), encoding="utf-8")
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    check_script(path)


@pytest.mark.parametrize("part", ["setup", "run"])
def test_the_scripts_of_a_sky_task_pass_shellcheck(tmp_path: Path, part: str) -> None:
    (task,) = documents(rendered("skypilot", tmp_path), "skypilot.yaml")
    path = tmp_path / f"{part}.sh"
    path.write_text(f"#!/bin/bash\n{task[part]}", encoding="utf-8")
    check_script(path)


def check_script(path: Path) -> None:
    tool = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("shellcheck is not installed")
    command = [tool, "--severity=warning", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# -- what travels -------------------------------------------------------------------------------------


@pytest.fixture
def local(tiny_world: World) -> SweepSpec:
    return parse_spec(spec_text(tiny_world))


def test_a_cluster_that_sees_these_files_gets_their_absolute_paths(
    local: SweepSpec, tiny_world: World, tmp_path: Path
) -> None:
    relative = local.model_copy(update={"data": local.data})
    prepared = rendered("slurm", tmp_path, relative)
    sent = parse_spec(text_of(prepared, "spec.yaml"))
    assert sent.data.train.path == str(tiny_world.train)
    assert spec_hash(sent) == spec_hash(local)


def test_data_travels_and_lies_where_the_sweep_says(
    local: SweepSpec, tiny_world: World, tmp_path: Path
) -> None:
    raw = yaml.safe_load(spec_text(tiny_world))
    raw["model"]["path"] = "/data/model"
    prepared = rendered("ray", tmp_path, parse_spec(yaml.safe_dump(raw)), storage="/data")
    write(prepared)
    sent = tmp_path / "launch" / "working_dir"
    names = sorted(path.relative_to(sent).as_posix() for path in sent.rglob("*") if path.is_file())
    assert names == [
        "inputs/0-train.jsonl",
        "inputs/1-heldout.jsonl",
        "inputs/2-harmful.jsonl",
        "inputs/3-harmless.jsonl",
        "spec.yaml",
    ]
    found = parse_spec((sent / "spec.yaml").read_text(encoding="utf-8"))
    assert found.data.train.path == "/data/runs/tiny/launch/inputs/0-train.jsonl"
    assert (sent / "inputs/0-train.jsonl").read_bytes() == tiny_world.train.read_bytes()
    assert "cp -R spec.yaml inputs /data/runs/tiny/launch/" in shlex.split(prepared.entrypoint)[-1]


def test_weights_are_never_sent(local: SweepSpec, tmp_path: Path) -> None:
    with raises("launch.not_visible", files=[f"model.path ({local.model.path})"]):
        rendered("ray", tmp_path, local, storage="/data")


def test_a_pod_is_not_promised_files_of_this_machine(local: SweepSpec, tmp_path: Path) -> None:
    with pytest.raises(LaunchError) as caught:
        rendered("kuberay", tmp_path, local)
    assert all(f"{name}.path" in str(caught.value) for name in ("model", "data.train"))


def test_more_than_ray_takes_is_refused_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    with (code / "big.csv").open("wb") as file:
        file.truncate(600 * 2**20)
    with raises("launch.too_large") as refused:
        rendered("ray", tmp_path / "run", working_dir=str(code))
    found: dict[str, Any] = dict(refused.value.values)
    assert found["bytes"] >= 600 * 2**20
    assert found["largest"][0].endswith("big.csv")
    assert not (tmp_path / "run").exists()


def test_the_submission_id_is_the_run_folder_s(tmp_path: Path) -> None:
    one, again, other = (rendered("ray", tmp_path / name) for name in ("a", "a", "b"))
    assert one.step.submission_id == again.step.submission_id != other.step.submission_id
    assert re.fullmatch(r"sweeper-[a-z0-9-]+-[0-9a-f]{8}", one.step.submission_id or "")


def test_a_path_that_sbatch_would_misread_is_refused(tmp_path: Path) -> None:
    with raises("launch.path"):
        rendered("slurm", tmp_path / "100% sure")


def test_no_address_of_another_cluster_travels(tmp_path: Path) -> None:
    text = (ROOT / "search_spaces" / f"{HUB_SPEC}.yaml").read_text(encoding="utf-8")
    spec = parse_spec(text, overrides=["compute.ray_address=10.0.0.1:6379"])
    sent = parse_spec(text_of(rendered("slurm", tmp_path, spec), "spec.yaml"))
    assert sent.compute.ray_address is None


@pytest.mark.parametrize("target", TARGETS)
def test_a_token_in_the_environment_is_in_nothing_that_is_written(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "RAY_AUTH_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "planted-0123456789")
    prepared = rendered(target, tmp_path)
    write(prepared)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == len(prepared.files) + (prepared.wheel is not None)
    assert not [path for path in written if b"planted" in path.read_bytes()]
    assert "planted" not in " ".join(prepared.step.command)


# -- the command --------------------------------------------------------------------------------------


@pytest.fixture
def launch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """`sweeper launch ...` in an empty folder, with no cluster's tool on PATH."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "no-tools"))
    return in_process(monkeypatch, capsys, "launch")


def words_of(target: Target) -> list[str]:
    given = ENOUGH[target].items()
    return [f"--{name.replace('_', '-')}={value}" for name, value in given]


@pytest.mark.parametrize("target", TARGETS)
def test_a_dry_run_prints_all_and_writes_nothing(
    launch: Command, target: Target, tmp_path: Path
) -> None:
    code, out, err = launch(HUB_SPEC, "--on", target, "--dry-run", *words_of(target))
    assert (code, err) == (0, "")
    prepared = prepare(
        hub_spec(), target, options_of(target, ENOUGH[target]), tmp_path / "runs" / HUB_SPEC
    )
    for path, text in prepared.files.items():
        assert f"--- {path}\n{text}" in out
    assert f"--- then: {shlex.join(prepared.step.command)}" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["slurm", "kuberay", "skypilot"])
def test_without_the_tool_the_files_are_written_and_the_command_is_said(
    launch: Command, target: Target, tmp_path: Path, sweep: Path
) -> None:
    spec = sweep if target == "slurm" else HUB_SPEC  # Slurm's nodes download nothing.
    code, _, err = launch(spec, "--on", target, "--out", "here", *words_of(target))
    assert code == 2
    assert "nothing was submitted" in err
    assert str(tmp_path / "here" / "launch") in err
    assert (tmp_path / "here" / "launch").is_dir()


def test_a_tool_that_refuses_is_quoted(
    launch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(
        "#!/bin/bash\necho 'invalid partition' >&2\nexit 1\n", encoding="utf-8"
    )
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    code, _, err = launch(sweep, "--on", "slurm")
    assert code == 2
    assert "sbatch failed with code 1: invalid partition" in err


@pytest.mark.usefixtures("offline_hub")
def test_what_a_node_without_network_would_not_find_is_refused_before_anything_is_written(
    launch: Command, tmp_path: Path
) -> None:
    code, _, err = launch(HUB_SPEC, "--on", "slurm", *words_of("slurm"))
    assert code == 2
    assert "is not in the cache" in err
    assert "sweeper prefetch" in err
    assert not (tmp_path / "runs").exists()


def test_what_plan_refuses_is_refused_before_anything_is_written(
    launch: Command, sweep: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("{\n", encoding="utf-8")
    code, _, err = launch(sweep, "--on", "slurm", "--set", "data.train.path=rows.jsonl")
    assert code == 2
    assert "rows.jsonl" in err
    assert "submitted" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("offline_hub")
def test_what_cannot_be_checked_from_here_is_said(launch: Command) -> None:
    """Another family than the published ones: its size is in its files, which are on the cluster."""
    _, out, _ = launch(
        HUB_SPEC, "--on", "kuberay", "--set", "model.path=someone/else", *words_of("kuberay")
    )
    assert "not checked before the job runs: " in out


@pytest.mark.usefixtures("offline_hub")
@pytest.mark.parametrize("target", ["kuberay", "slurm"])
def test_epochs_of_rows_that_are_elsewhere_are_counted_there(
    launch: Command, target: Target
) -> None:
    epochs = ("--set", "space.num_epochs=[1]", "--set", "space.max_steps=null")
    code, out, err = launch(HUB_SPEC, "--on", target, *epochs, *words_of(target))
    assert ("not checked before the job runs: " in out) == (target == "kuberay")
    assert code == 2
    assert ("is not in the cache" in err) == (target == "slurm")


def test_an_unknown_target_is_named(launch: Command) -> None:
    code, _, err = launch(HUB_SPEC, "--on", "lsf")
    assert code == 2
    assert "--on: found 'lsf', expected one of ray, slurm, kuberay, skypilot" in err


def test_a_launch_leaves_a_run_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps({"a": 1}), encoding="utf-8")
    slurm = rendered("slurm", tmp_path)
    write(slurm)
    write(rendered("ray", tmp_path))
    assert (tmp_path / "records.jsonl").read_text(encoding="utf-8") == '{"a": 1}'
    assert {path.name for path in (tmp_path / "launch").iterdir()} == {
        next(iter(slurm.files)).parent.name,
        "slurm.sh",
        "ray.yaml",
        "working_dir",
    }
