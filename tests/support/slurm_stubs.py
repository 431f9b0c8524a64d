"""Two pretended Slurm nodes on one machine, each with its own network, processes and temporary folder.

`scontrol`, `srun` and `sbatch` are small scripts; Ray, the sweep and all signals are real. What Slurm
does and the stubs do not: queues, cgroups, real hosts.
"""

import subprocess
from pathlib import Path

NAMESPACES = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--net"]
"""Everything started below ends with the process that this starts."""

SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") printf 'node1\\nnode2\\n' ;;
    "requeue "*) echo "$2" >>"$STUBS/requeued.log" ;;
    *) exit 9 ;;
esac
"""

SBATCH = """#!/bin/bash
echo "$*" >>"$STUBS/sbatch.log"
echo "Submitted batch job 4242"
"""

SRUN = """#!/bin/bash
# A task on each node asked for. TERM goes to every process of a node, as slurmstepd sends it.
nodes=(node1 node2)
while [[ "$1" == --* ]]; do
    case "$1" in
        --nodelist=*) nodes=("${1#--nodelist=}") ;;
    esac
    shift
done
echo "${nodes[*]}: $*" >>"$STUBS/srun.log"
tasks=()
rank=0
for node in "${nodes[@]}"; do
    SLURM_PROCID=$rank ip netns exec "$node" \\
        unshare --pid --fork --kill-child --mount-proc --mount "$STUBS/task" "$@" &
    tasks+=($!)
    rank=$((rank + 1))
done
trap 'touch "$STUBS/term"' TERM
status=0
for task in "${tasks[@]}"; do
    code=0
    wait "$task" || code=$?
    while kill -0 "$task" 2>/dev/null; do
        code=0
        wait "$task" || code=$?
    done
    [ "$code" -gt "$status" ] && status=$code
done
rm -f "$STUBS/term"
exit "$status"
"""

TASK = """#!/bin/bash
# The first process of a node: ends when its task ends, and everything on the node with it.
mkdir -p "$RAY_TMPDIR" 2>/dev/null && mount -t tmpfs tmpfs "$RAY_TMPDIR"
"$@" &
task=$!
told=no
while kill -0 "$task" 2>/dev/null; do
    if [ -e "$STUBS/term" ] && [ "$told" = no ]; then
        told=yes
        kill -TERM -1 # All but the first process of a namespace, which this is.
    fi
    sleep 0.1
done
wait "$task"
"""

JOB = """#!/bin/bash
# Runs a batch script as Slurm would; $2 records, or more, bring the walltime near.
ip link set lo up
mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
ip link add bridge type bridge && ip link set bridge up
for n in 1 2; do
    ip netns add node$n
    ip link add to$n type veth peer name eth0 netns node$n
    ip link set to$n master bridge up
    ip -n node$n link set lo up
    ip -n node$n addr add 10.77.0.$n/24 dev eth0
    ip -n node$n link set eth0 up
done
bash "$1" &
job=$!
while kill -0 "$job" 2>/dev/null; do
    found=$(cat "$RECORDS" 2>/dev/null | wc -l)
    if [ "$2" -gt 0 ] && [ "$found" -ge "$2" ]; then
        kill -USR1 "$job"
        break
    fi
    sleep 0.1
done
wait "$job"
"""

OLD_RAY = """#!/bin/bash
# Ray before `symmetric-run`.
[ "$1" = symmetric-run ] && exit 2
exec "$RAY" "$@"
"""


def namespaces() -> bool:
    """Whether this machine lets a test make its own network and processes."""
    probe = [*NAMESPACES, "ip", "link", "add", "probe", "type", "bridge"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def write_stubs(folder: Path, *, old_ray: bool = False) -> Path:
    """The scripts in a folder for the front of PATH."""
    scripts = {
        "scontrol": SCONTROL,
        "sbatch": SBATCH,
        "srun": SRUN,
        "task": TASK,
        "job": JOB,
    }
    if old_ray:
        scripts["ray"] = OLD_RAY
    folder.mkdir()
    for name, text in scripts.items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    return folder
