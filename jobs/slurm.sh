#!/bin/bash
# Purpose: one sweep on Slurm, through a Ray cluster that lives as long as the job. Before the walltime ends
#          the sweep is stopped and the job requeued; it goes on from its last checkpoints. Compute nodes need
#          no network: run `sweeper prefetch SPEC` beforehand.
# Launch:  sweeper launch SPEC --on slurm --nodes 2 --gpus-per-node 8 --time 12:00:00
# Change:  `--sbatch=--qos=high` adds a line; module loads go below them. Set SWEEPER_HEAD_IP in the
#          environment where the first address of a node is not the one that other nodes reach it under.
#SBATCH --job-name={{ name }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
{% if not shared %}
#SBATCH --exclusive
{% endif %}
{% if gpus %}
#SBATCH --gpus-per-node={{ gpus }}
{% endif %}
{% if cpus %}
#SBATCH --cpus-per-task={{ cpus }}
{% endif %}
{% if memory %}
#SBATCH --mem={{ memory }}
{% endif %}
{% if partition %}
#SBATCH --partition={{ partition }}
{% endif %}
{% if account %}
#SBATCH --account={{ account }}
{% endif %}
#SBATCH --time={{ time }}
#SBATCH --signal=B:USR1@{{ lead }}
#SBATCH --requeue
#SBATCH --dependency=singleton
#SBATCH --open-mode=append
#SBATCH --output={{ log }}
{% if sbatch %}
{{ sbatch }}
{% endif %}
set -euo pipefail

export PATH={{ bin }}:"$PATH"
export SLURM_EXPORT_ENV=ALL # Else `sbatch --export=NONE`, or a site's SBATCH_EXPORT, empties that of srun.
export HF_HUB_OFFLINE=1
{% if hf_home %}
export HF_HOME={{ hf_home }}
{% endif %}
{% if hf_hub_cache %}
export HF_HUB_CACHE={{ hf_hub_cache }}
{% endif %}
{% if hf_datasets_cache %}
export HF_DATASETS_CACHE={{ hf_datasets_cache }}
{% endif %}
{% if sweeper_cache %}
export SWEEPER_CACHE={{ sweeper_cache }}
{% endif %}
export RAY_TMPDIR="/tmp/sweeper-$SLURM_JOB_ID" RAY_USAGE_STATS_ENABLED=0

# Whoever reaches the ports of a Ray cluster without a token can run code on it. This one is in no file.
RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

# What the nodes say to each other: `stop`, `failed-NODE`, the port of Ray, and the exit code of the sweep.
SWEEPER_STATE={{ folder }}/job-$SLURM_JOB_ID
mkdir -p "$SWEEPER_STATE"
rm -f "$SWEEPER_STATE"/{stop,code,port} "$SWEEPER_STATE"/{failed,left}-*
export SWEEPER_STATE

again=no requeued=no
requeue() { # Why, unless it was requeued often enough.
    if [ "${SLURM_RESTART_COUNT:-0}" -lt {{ retries }} ]; then
        echo "$1; requeued, the sweep goes on where it stopped"
        requeued=yes
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "$1; requeued {{ retries }} times already; launch again to go on" >&2
    fi
}

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=$(srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" bash {{ node_script }} address) || {
    echo "the first node, ${hosts[0]}, cannot run a sweep; see above" >&2
    exit 1
}
export SWEEPER_HEAD_IP=${SWEEPER_HEAD_IP:-$address}

# USR1 comes {{ lead }} seconds before the walltime: the sweep is stopped, and what has not ended after two
# thirds of them is terminated. TERM comes when somebody cancels the job.
stop_soon() {
    again=yes
    touch "$SWEEPER_STATE/stop"
    (sleep $(({{ lead }} * 2 / 3)) && kill -TERM "$step") 2>/dev/null &
}
cancel() {
    cancelled=yes
    kill -TERM "$step" || true
}
cancelled=no
trap stop_soon USR1
trap cancel TERM

# No node ends the others: one that is lost starts Ray again, and the first one ends when the sweep has. All
# trials of a node are children of one task, which a site may bind to a core of its own.
srun --ntasks="${#hosts[@]}" --ntasks-per-node=1 --cpu-bind=none --wait=0 --kill-on-bad-exit=0 bash {{ node_script }} &
step=$!
while kill -0 "$step" 2>/dev/null; do # A signal ends `wait`, not the step.
    wait "$step" || true
done

code=$(cat "$SWEEPER_STATE/code" 2>/dev/null || echo none)
if [ "$code" != none ]; then rm -f "$SWEEPER_STATE/bad-starts"; fi
if [ "$code" = 75 ]; then # Another driver has the folder: that of a node which Slurm has lost.
    requeue "the run folder is in use"
elif [ "$again" = yes ] && [ "$code" != 0 ]; then
    requeue "the walltime is near"
elif [ "$code" = none ] && [ "$cancelled" = no ]; then
    bad=$(($(cat "$SWEEPER_STATE/bad-starts" 2>/dev/null || echo 0) + 1))
    echo "$bad" >"$SWEEPER_STATE/bad-starts"
    if [ "$bad" -lt 3 ]; then requeue "Ray was lost, or did not start"; fi
fi
if [ "$requeued" = no ]; then rm -rf "$SWEEPER_STATE"; fi
if [ "$code" = none ]; then code=1; fi
exit "$code"
