#!/bin/bash
# Purpose: what each node of the Slurm job runs: Ray, and on the first node the sweep.
# Launch:  slurm.sh starts it through srun; never by hand.
# Change:  the Ray options in `resources`, for example --resources.
set -euo pipefail

address="$SWEEPER_HEAD_IP:$SWEEPER_PORT"
status="$RAY_TMPDIR/status"

if [ "${1:-}" = sweep ]; then # On the first node, once Ray is there.
    RAY_ADDRESS="$address" {{ command }} &
    sweep=$!
    stopping=no
    trap 'stopping=yes; kill -TERM "$sweep"' TERM
    while kill -0 "$sweep" 2>/dev/null; do
        if [ "$stopping" = no ] && [ -e "$SWEEPER_STOP" ]; then
            stopping=yes
            kill -TERM "$sweep"
        fi
        sleep 1
    done
    code=0
    wait "$sweep" || code=$?
    echo "$code" >"$status"
    exit "$code"
fi

resources=(--num-cpus="$SWEEPER_CPUS" --num-gpus={{ gpus }})
ports=( # All of them the job's own: a node may be shared after all.
    --node-manager-port=$((SWEEPER_PORT + 1)) --object-manager-port=$((SWEEPER_PORT + 2))
    --runtime-env-agent-port=$((SWEEPER_PORT + 3)) --dashboard-agent-listen-port=$((SWEEPER_PORT + 4))
    --dashboard-agent-grpc-port=$((SWEEPER_PORT + 5)) --metrics-export-port=$((SWEEPER_PORT + 6))
    --min-worker-port=$((SWEEPER_PORT + 100)) --max-worker-port=$((SWEEPER_PORT + 999))
)
patience=$((SECONDS + RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT))
mkdir -p "$RAY_TMPDIR"
chmod 700 "$RAY_TMPDIR"
rm -f "$status"

wait_until() {
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -gt "$patience" ]; then
            echo "waited in vain for: $*" >&2
            exit 1
        fi
        sleep 1
    done
}

head_listens() {
    (: <"/dev/tcp/$SWEEPER_HEAD_IP/$SWEEPER_PORT")
}

all_nodes() {
    python -c '
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
sys.exit(sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]))
' "$address" {{ nodes }}
}

# A node of the cluster, until the first one has done its work.
follow() {
    "$@" || true # It ends with an error whenever the first node stops Ray.
    exit 0
}

# Ray itself gives up after half a minute, and nodes may start further apart than that.
[ "$SLURM_PROCID" -eq 0 ] || wait_until head_listens

if ray symmetric-run --help >/dev/null 2>&1; then
    symmetric=(ray symmetric-run --address "$address" --min-nodes {{ nodes }})
    symmetric+=("${ports[@]}" "${resources[@]}" -- bash "$0" sweep)
    [ "$SLURM_PROCID" -eq 0 ] || follow "${symmetric[@]}"
    "${symmetric[@]}" || true # Its own code is not the sweep's: it ends with 1 when it has stopped Ray.
else # Ray before 2.49.
    [ "$SLURM_PROCID" -eq 0 ] ||
        follow ray start --address="$address" --block "${ports[@]}" "${resources[@]}"
    ray start --head --block --node-ip-address="$SWEEPER_HEAD_IP" --port="$SWEEPER_PORT" \
        --include-dashboard=false --ray-client-server-port=$((SWEEPER_PORT + 7)) \
        "${ports[@]}" "${resources[@]}" &
    head=$!
    trap 'kill -TERM "$head" 2>/dev/null || true' EXIT
    wait_until all_nodes
    bash "$0" sweep || true
fi

[ -e "$status" ] || exit 1 # The sweep has not begun, or was killed.
exit "$(cat "$status")"
