#!/bin/bash
# Purpose: what each node of the Slurm job runs: Ray, and on the first node the sweep.
# Launch:  slurm.sh starts it through srun; never by hand.
# Change:  the Ray options in `resources`, for example --resources.
set -euo pipefail

node=$(hostname)
if [ ! -x {{ bin }}/ray ]; then
    echo "$node: no Ray in" {{ bin }}"; every node must see the environment that launched the sweep, with" \
        "'sweeper-llm[train,cluster]' in it" >&2
    touch "$SWEEPER_STATE/failed-$node"
    exit 127
fi

if [ "${1:-}" = address ]; then # Of the first node, which other nodes reach it under.
    read -r address _ < <(hostname -I)
    echo "$address"
    exit
fi

# The first of 12 blocks of 1000 ports, below those that Linux hands out itself, in which none is in use. It
# is this job's own: no other job of this kind takes it while the process here holds its last port.
coproc BLOCK { python -c '
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN) # Ray is still ending then.
for block in range(12):
    first = 20000 + (int(sys.argv[1]) + block) % 12 * 1000
    claim = socket.socket()
    try:
        claim.bind(("", first + 999))
        for port in range(first, first + 8):
            with socket.socket() as probe:
                probe.bind(("", port))
    except OSError:
        claim.close()
        continue
    print(first, flush=True)
    sys.stdin.read() # Until this script ends, however it does.
    break
else:
    sys.exit("no block of ports is free")
' "$SLURM_JOB_ID"; }
read -r first <&"${BLOCK[0]}" || {
    touch "$SWEEPER_STATE/failed-$node"
    exit 1
}

resources=(--num-cpus={% if cpus %}{{ cpus }}{% else %}"$SLURM_CPUS_ON_NODE"{% endif %} --num-gpus="${SLURM_GPUS_ON_NODE:-{{ gpus }}}")
ports=( # All of them the job's own: a node may be shared.
    --node-manager-port=$((first + 1)) --object-manager-port=$((first + 2))
    --runtime-env-agent-port=$((first + 3)) --dashboard-agent-listen-port=$((first + 4))
    --dashboard-agent-grpc-port=$((first + 5)) --metrics-export-port=$((first + 6))
    --min-worker-port=$((first + 100)) --max-worker-port=$((first + 998))
)
log="$RAY_TMPDIR/ray.out"
export TMPDIR="$RAY_TMPDIR"
mkdir -p "$RAY_TMPDIR" && chmod 700 "$RAY_TMPDIR"
ray=
leave() { # Nothing stays on the node. Ray that has lost its head would wait for it for a minute.
    if [ -n "$ray" ] && kill -TERM "$ray" 2>/dev/null; then
        for _ in {1..10}; do
            ray_runs || break
            sleep 1
        done
        pkill -KILL -P "$ray" || true
        kill -KILL "$ray" 2>/dev/null || true
    fi
    touch "$SWEEPER_STATE/left-$node" || true
    cd / && rm -rf "$RAY_TMPDIR"
}
trap leave EXIT

start_ray() { # Its processes are children of this one, and end with it.
    ray start --block "$@" "${ports[@]}" "${resources[@]}" >>"$log" 2>&1 &
    ray=$!
}
ray_runs() {
    kill -0 "$ray" 2>/dev/null
}
head_listens() {
    port=$(cat "$SWEEPER_STATE/port" 2>/dev/null) &&
        timeout 5 bash -c ': <"/dev/tcp/$0/$1"' "$SWEEPER_HEAD_IP" "$port" 2>/dev/null
}

follow() { # Ray of this node, started again whenever it is lost, until the sweep has ended or the head is gone.
    local seen=$SECONDS patience=600
    trap 'exit 0' TERM
    while [ ! -e "$SWEEPER_STATE/code" ] && [ $((SECONDS - seen)) -lt "$patience" ]; do
        if head_listens; then
            seen=$SECONDS patience=30
            ray_runs || start_ray --address="$SWEEPER_HEAD_IP:$port"
        fi
        sleep 1
    done
}

lead() { # Ray's own patience is half a minute, which a busy node may exceed.
    address="$SWEEPER_HEAD_IP:$first"
    echo "$first" >"$SWEEPER_STATE/port.new"
    mv "$SWEEPER_STATE/port.new" "$SWEEPER_STATE/port"
    for _ in 1 2 3; do
        start_ray --head --node-ip-address="$SWEEPER_HEAD_IP" --port="$first" \
            --include-dashboard=false --ray-client-server-port=$((first + 7))
        until head_listens; do
            ray_runs || continue 2
            sleep 1
        done
        return
    done
    echo "$node: Ray does not start:" >&2
    tail -n 20 "$log" >&2
    exit 1
}

wait_for_nodes() { # Ten minutes at most; then the sweep starts with those that are there.
    python -c '
import sys, time
from pathlib import Path
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
until = time.monotonic() + 600
while True:
    joined = sum(node["Alive"] for node in ray.nodes())
    failed = len(list(Path(sys.argv[2]).glob("failed-*")))
    if joined + failed >= int(sys.argv[3]) or time.monotonic() > until:
        break
    time.sleep(1)
print(f"{joined} of {sys.argv[3]} nodes have joined")
' "$address" "$SWEEPER_STATE" {{ nodes }}
}

run_sweep() {
    local code=0 stopping=no
    RAY_ADDRESS="$address" {{ command }} &
    sweep=$!
    trap 'stopping=yes; kill -TERM "$sweep" || true' TERM
    while kill -0 "$sweep" 2>/dev/null; do
        if [ "$stopping" = no ] && [ -e "$SWEEPER_STATE/stop" ]; then
            stopping=yes
            kill -TERM "$sweep" || true
        fi
        sleep 1
    done
    wait "$sweep" || code=$?
    if [ "$code" -eq 2 ] && in_use; then code=75; fi
    if [ "$code" -ne 0 ] && ! ray_runs; then exit 1; fi # The sweep ended because Ray did.
    echo "$code" >"$SWEEPER_STATE/code.new"
    mv "$SWEEPER_STATE/code.new" "$SWEEPER_STATE/code"
    for _ in {1..15}; do # Nodes that leave before the head say nothing of losing it.
        gone=$(find "$SWEEPER_STATE" -name 'left-*' -o -name 'failed-*' | wc -l)
        if [ "$gone" -ge $(({{ nodes }} - 1)) ]; then break; fi
        sleep 1
    done
    exit "$code"
}

in_use() {
    python -c '
import sys
from pathlib import Path
from sweeper.store.folder import RunFolder
sys.exit(not RunFolder(Path(sys.argv[1])).has_driver())
' {{ run }}
}

if [ "$SLURM_PROCID" -ne 0 ]; then
    follow
    exit 0
fi
lead
{% if nodes > 1 %}
wait_for_nodes
{% endif %}
run_sweep
