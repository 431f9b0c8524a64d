#!/bin/bash
# Purpose: one sweep on Slurm nodes that this job has to itself, through a Ray cluster that lives as long
#          as the job. Before the walltime ends the sweep is stopped and the job requeued; it goes on from
#          its last checkpoints. Compute nodes need no network: run `sweeper prefetch SPEC` beforehand.
# Launch:  sweeper launch SPEC --on slurm --nodes 2 --gpus-per-node 8 --time 12:00:00
# Change:  the #SBATCH lines your site asks for (partition, account, constraint), module loads below them,
#          and SWEEPER_HEAD_IP in the environment where the first address of a node is not the one that
#          other nodes reach it under.
#SBATCH --job-name={{ name }}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
{% if gpus %}
#SBATCH --gpus-per-node={{ gpus }}
{% endif %}
{% if cpus %}
#SBATCH --cpus-per-task={{ cpus }}
{% endif %}
{% if partition %}
#SBATCH --partition={{ partition }}
{% endif %}
{% if account %}
#SBATCH --account={{ account }}
{% endif %}
#SBATCH --time={{ time }}
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --dependency=singleton
#SBATCH --open-mode=append
#SBATCH --output={{ log }}
set -euo pipefail

export PATH={{ bin }}:"$PATH"
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
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600
export RAY_TMPDIR="/tmp/sweeper-$SLURM_JOB_ID"
export RAY_USAGE_STATS_ENABLED=0

# Whoever reaches the ports of a Ray cluster without a token can run code on it. This one is in no file.
RAY_AUTH_TOKEN=$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

SWEEPER_PORT=$((20000 + SLURM_JOB_ID % 12 * 1000)) # Below the ports that Linux hands out itself.
SWEEPER_CPUS=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
if [ -z "${SWEEPER_HEAD_IP:-}" ]; then
    addresses=$(srun --nodes=1 --ntasks=1 --nodelist="${hosts[0]}" hostname -I)
    SWEEPER_HEAD_IP=${addresses%% *}
fi
SWEEPER_STOP={{ folder }}/stop-$SLURM_JOB_ID
rm -f "$SWEEPER_STOP"
export SWEEPER_PORT SWEEPER_CPUS SWEEPER_HEAD_IP SWEEPER_STOP

# USR1 comes 300 seconds before the walltime: the sweep is asked to stop, and what has not ended after 200
# is terminated. TERM comes when somebody cancels the job.
again=no
stop_soon() {
    again=yes
    touch "$SWEEPER_STOP"
    (sleep 200 && kill -TERM "$step") 2>/dev/null &
}
trap stop_soon USR1
trap 'kill -TERM "$step"' TERM

srun --ntasks="${#hosts[@]}" --ntasks-per-node=1 --cpus-per-task="$SWEEPER_CPUS" --wait=90 \
    bash {{ node_script }} &
step=$!
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do # A signal ends `wait`, not the step.
    status=0
    wait "$step" || status=$?
done
rm -f "$SWEEPER_STOP"

if [ "$again" = yes ] && [ "$status" -ne 0 ]; then
    if [ "${SLURM_RESTART_COUNT:-0}" -lt {{ retries }} ]; then
        echo "the walltime is near; requeued, the sweep goes on where it stopped"
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "requeued {{ retries }} times already; launch again to go on" >&2
    fi
fi
exit "$status"
