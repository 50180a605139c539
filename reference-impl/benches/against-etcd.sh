#!/usr/bin/env bash
# paxos-kv against etcd: three nodes each, on this machine and this disk, fsync on, the same load generator, in turns.
#
#   reference-impl/benches/against-etcd.sh [ROUNDS] [SECONDS] [FOLDER]       defaults: 5 rounds, 4 seconds, a new folder in .
#
# In each round both systems start on empty folders, one after the other; which comes first alternates. Every client talks to
# the leader, in both systems. Prints a table of medians and ratios; exits with 1 if a bound is missed. FOLDER must be on a
# real disk: on tmpfs an fsync costs nothing.
set -euo pipefail
rounds=${1:-5} seconds=${2:-4} folder=${3:-against-etcd.$$}
cd "$(dirname "$0")/../.."

etcd=$(command -v etcd) || {
  echo "etcd is not installed. On Debian: apt-get install etcd-server" >&2
  exit 2
}
cargo build --release --locked --quiet -p paxos-kv --bin paxos-kv --example load
ours=target/release/paxos-kv load=target/release/examples/load
mkdir -p "$folder"
if [ "$(stat -f -c %T "$folder")" = tmpfs ]; then
  echo "$folder is on tmpfs, where an fsync costs nothing; name a folder on a disk" >&2
  exit 2
fi
results=$folder/runs.jsonl
: >"$results"

nodes=()
stop() {
  [ ${#nodes[@]} = 0 ] || kill "${nodes[@]}" 2>/dev/null || true
  [ ${#nodes[@]} = 0 ] || wait "${nodes[@]}" 2>/dev/null || true
  nodes=()
}
trap stop EXIT

start_etcd() {
  local all="" i
  for i in 1 2 3; do all+="${all:+,}n$i=http://127.0.0.1:2${i}80"; done
  for i in 1 2 3; do
    "$etcd" --name "n$i" --data-dir "$1/n$i" --log-level warn \
      --listen-client-urls "http://127.0.0.1:2${i}79" --advertise-client-urls "http://127.0.0.1:2${i}79" \
      --listen-peer-urls "http://127.0.0.1:2${i}80" --initial-advertise-peer-urls "http://127.0.0.1:2${i}80" \
      --initial-cluster "$all" --initial-cluster-state new >"$1/n$i.log" 2>&1 &
    nodes+=($!)
  done
}

start_paxos-kv() {
  local i j
  for i in 1 2 3; do
    local peers=()
    for j in 1 2 3; do [ $j = $i ] || peers+=(--peer "$j=127.0.0.1:2${j}82"); done
    "$ours" --id $i --data "$1/n$i" --client-listen "127.0.0.1:2${i}81" --peer-listen "127.0.0.1:2${i}82" \
      --fsync group "${peers[@]}" >"$1/n$i.log" 2>&1 &
    nodes+=($!)
  done
}

measure() {
  local system=$1 round=$2 port data
  [ "$system" = etcd ] && port=79 || port=81
  data=$folder/$system-$round
  mkdir -p "$data"
  "start_$system" "$data"
  local at="127.0.0.1:21$port,127.0.0.1:22$port,127.0.0.1:23$port"
  local args=(drive --system "$system" --nodes "$at" --seconds "$seconds" --warm-up 1)
  local clients
  for clients in 1 64 256; do
    "$load" "${args[@]}" --clients $clients >>"$results"
    "$load" "${args[@]}" --clients $clients --read >>"$results"
  done
  stop
  # The data is of no use any more, the logs may be.
  rm -rf "$data"/n?
}

for ((round = 1; round <= rounds; round++)); do
  order=(etcd paxos-kv)
  [ $((round % 2)) = 1 ] || order=(paxos-kv etcd)
  for system in "${order[@]}"; do
    echo "round $round of $rounds: $system" >&2
    measure "$system" "$round"
  done
done

echo "$(uname -sr), $(nproc) processors, $(stat -f -c %T "$folder"); etcd $(etcd --version | sed -n 's/^etcd Version: //p')"
"$load" compare "$results"
