#!/usr/bin/env bash
# A sweep on Slurm. Run this on the login node; it submits a job and returns.
#
#   SHARED=/path/seen/by/all/nodes bash examples/slurm.sh examples/my_model.yaml
#
# The sweep stops 300 seconds before its walltime, the job is requeued and continues. To follow or continue it by
# hand, see the last lines.
set -euo pipefail
SPEC=${1:?usage: SHARED=/path/seen/by/all/nodes bash examples/slurm.sh SPEC}
: "${SHARED:?set SHARED to a folder that all nodes see}"

# 1. Model, data and prompts into a cache on the shared disk: compute nodes often have no internet.
export HF_HOME="$SHARED/huggingface" SWEEPER_CACHE="$SHARED/sweeper"
sweeper prefetch "$SPEC"

# 2. What will it train, and does a trial fit the GPUs?
sweeper plan "$SPEC" --workers 16

# 3. Look at the job without submitting it, then submit it: 2 nodes with 8 GPUs each.
JOB=(--on slurm --nodes 2 --gpus-per-node 8 --time 12:00:00 --out "$SHARED/runs/mine")
sweeper launch "$SPEC" "${JOB[@]}" --dry-run
sweeper launch "$SPEC" "${JOB[@]}"

# 4. Later, from any machine that sees the disk.
echo "progress:  sweeper status $SHARED/runs/mine; sweeper logs $SHARED/runs/mine"
echo "stop:      sweeper stop $SHARED/runs/mine"
echo "continue:  the launch command above, again"
echo "answer:    sweeper recommend $SHARED/runs/mine; sweeper report $SHARED/runs/mine"
