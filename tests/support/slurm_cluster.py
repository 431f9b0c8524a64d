"""A real Slurm on this machine: slurmctld, and nodes with network, processes and /tmp of their own.

It is Debian's `slurm-wlm` with munge, in namespaces: `unshare` ends everything with the process that it
starts, and the addresses 10.78.0.x exist only inside. Slurm finds CPUs and GPUs that there are not.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.busy_machine import BUSY

ROOT = Path(__file__).parents[2]

TOOLS = ("slurmctld", "slurmd", "munged", "sbatch", "ip", "unshare", "nsenter")

NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts")

CLUSTER = """#!/bin/bash
# The machine of slurmctld, and the switch between the nodes. $1: folder; then the CPUs of each node.
set -euo pipefail
dir=$1; shift
hostname login
ip link set lo up
ip link add switch type bridge
ip addr add 10.78.0.100/24 dev switch
ip link set switch up
mkdir -p /run/netns /run/munge /etc/slurm
mount -t tmpfs tmpfs /run/netns
mount -t tmpfs tmpfs /run/munge && chmod 755 /run/munge
mount --bind "$dir/etc" /etc/slurm
mount --bind "$dir/hosts" /etc/hosts
munged --force --key-file="$dir/munge/key" --socket=/run/munge/munge.socket.2 --pid-file="$dir/munge/pid" \\
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
slurmctld -D -i >"$dir/slurmctld.out" 2>&1 &
n=0
for cpus in "$@"; do
    n=$((n + 1))
    ip netns add "node$n"
    ip link add "to$n" type veth peer name eth0 netns "node$n"
    ip link set "to$n" master switch up
    ip -n "node$n" link set lo up
    ip -n "node$n" addr add "10.78.0.$n/24" dev eth0
    ip -n "node$n" link set eth0 up
    # Not `ip netns exec`, whose /sys has no cgroups.
    nsenter --net="/run/netns/node$n" unshare --pid --fork --kill-child --mount-proc --mount --uts --ipc \\
        bash "$dir/node.sh" "$dir" "node$n" >"$dir/node$n.out" 2>&1 &
done
wait
"""

NODE = """#!/bin/bash
# A node. Of /tmp it sees only what the test keeps there for all nodes.
set -euo pipefail
dir=$1 name=$2
hostname "$name"
mapfile -t seen <"$dir/seen"
mount -t tmpfs tmpfs /mnt
for place in "${seen[@]}"; do
    mkdir -p "/mnt$place"
    mount --rbind "$place" "/mnt$place"
done
mount -t tmpfs -o mode=1777 tmpfs /tmp
for place in "${seen[@]}"; do
    mkdir -p "$place"
    mount --rbind "/mnt$place" "$place"
done
mount -t tmpfs -o mode=1777,size=2g tmpfs /dev/shm
slurmd -N "$name" -D &
wait # Not `exec`: the first process of a node has to reap what others have left.
"""

PROLOG = "#!/bin/sh\n" + "".join(f"echo export {name}={value}\n" for name, value in BUSY.items())
"""Of every task, whatever environment its job was given."""

CONF = """ClusterName=test
SlurmctldHost=login(10.78.0.100)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool-%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={dir}/prolog.sh
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=2,sched_min_interval=500000
ReturnToService=2
KillWait=10
MinJobAge=3600
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str | None:
    """Why this machine cannot start a Slurm; None where it can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"no real Slurm: {', '.join(missing)} not found (apt-get install slurm-wlm munge iproute2)"
    probe = [*NAMESPACES, "--net", "ip", "link", "add", "probe", "type", "bridge"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "no real Slurm: this machine allows no namespaces of one's own (needs root)"
    return None


class SlurmCluster:
    """A running cluster; `cpus` are those of each node, and each has 2 GPUs and 6000 MB.

    Raises:
        RuntimeError: the nodes are not ready within `PATIENCE_SECONDS`.
    """

    PATIENCE_SECONDS = 60.0

    def __init__(self, folder: Path, cpus: Sequence[int], shared: Path) -> None:
        self._folder, self._shared = folder, shared
        self._write(cpus)
        command = [*NAMESPACES, "--ipc", "--net", "bash", str(folder / "cluster.sh"), str(folder)]
        with (folder / "cluster.out").open("wb") as out:
            self._outer = subprocess.Popen(
                [*command, *map(str, cpus)], stdout=out, stderr=subprocess.STDOUT
            )
        self._inner = self._child()
        until = time.monotonic() + self.PATIENCE_SECONDS
        while self("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() != self.nodes:
            if time.monotonic() > until or self._outer.poll() is not None:
                self.stop()
                raise RuntimeError(f"Slurm did not start: {self._said()}")
            time.sleep(0.5)

    def _write(self, cpus: Sequence[int]) -> None:
        folder = self._folder
        self.nodes = [f"node{n}" for n in range(1, len(cpus) + 1)]
        for name in ("etc", "state", "munge", *(f"spool-{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True)
        folder.joinpath("munge", "key").write_bytes(os.urandom(1024))
        folder.joinpath("munge", "key").chmod(0o400)
        folder.joinpath("munge").chmod(0o700)
        lines = [
            f"NodeName={node} NodeAddr=10.78.0.{n} CPUs={count} RealMemory=6000 Gres=gpu:2 State=UNKNOWN"
            for n, (node, count) in enumerate(zip(self.nodes, cpus, strict=True), start=1)
        ]
        for gpu in range(2):
            folder.joinpath(f"gpu{gpu}").touch()
        gres = f"NodeName=node[1-{len(cpus)}] Name=gpu File={folder}/gpu[0-1]\n"
        version = subprocess.run(
            ["slurmd", "-V"], capture_output=True, text=True, check=True
        ).stdout
        old = version.split()[-1] < "23.11"  # It insists on some cgroups.
        cgroups = (
            "CgroupPlugin=cgroup/v1\nCgroupAutomount=yes\n" if old else "CgroupPlugin=disabled\n"
        )
        hosts = ["127.0.0.1 localhost", "10.78.0.100 login"]
        hosts += [f"10.78.0.{n} {node}" for n, node in enumerate(self.nodes, start=1)]
        texts = {
            "etc/slurm.conf": CONF.format(dir=folder, nodes="\n".join(lines)),
            "etc/gres.conf": gres,
            "etc/cgroup.conf": cgroups,
            "hosts": "\n".join(hosts) + "\n",
            "seen": "".join(f"{place}\n" for place in self._seen()),
            "cluster.sh": CLUSTER,
            "node.sh": NODE,
            "prolog.sh": PROLOG,
        }
        for name, text in texts.items():
            folder.joinpath(name).write_text(text, encoding="utf-8")
        folder.joinpath("prolog.sh").chmod(0o755)

    def _seen(self) -> list[Path]:
        """What of /tmp all nodes see."""
        places = (self._folder, self._shared, ROOT, Path(sys.prefix))
        return [place for place in places if place.is_relative_to("/tmp")]

    def _child(self) -> int:
        """The first process inside; it appears at once."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        for _ in range(100):
            if found := children.read_text(encoding="ascii").split():
                return int(found[0])
            time.sleep(0.05)
        raise RuntimeError(f"Slurm did not start: {self._said()}")

    def __call__(self, *words: str, **environment: str) -> str:
        """The output of a command on the login node, errors included."""
        enter = (
            "nsenter",
            "--target",
            str(self._inner),
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
        )
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RAY_", "SLURM_", "SBATCH_"))
        }
        done = subprocess.run(
            [*enter, "--wd=/", "--", *words],
            env={**inherited, **BUSY, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout

    def field(self, job: str, name: str) -> str:
        """A field of `scontrol show job`."""
        text = self("scontrol", "show", "job", job)
        return next(word.partition("=")[2] for word in text.split() if word.startswith(f"{name}="))

    def release(self, job: str) -> None:
        """Start a requeued job now; Slurm holds it back for two minutes."""
        self("scontrol", "update", f"jobid={job}", "StartTime=now")

    def stop(self) -> None:
        """End everything."""
        self._outer.kill()
        self._outer.wait()

    def _said(self) -> str:
        logs = [*self._folder.glob("*.out"), *self._folder.glob("*.log")]
        return " | ".join(
            f"{path.name}: {' '.join(path.read_text('utf-8', 'replace').splitlines()[-3:])}"
            for path in sorted(logs)
        )
