#!/usr/bin/env bash
# What judging costs a whole process, on histories of the sizes and kinds that hurt. Prints a table.
#
#   checkers/benches/whole-process.sh [CASE…]        all cases if none is named; `list` in place of a case lists them
#
# Each history is written by one process and read and judged by another, so that the memory is that of judging. Needs about
# 2 GB of disk in $TMPDIR and 5 minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release --quiet --locked -p checkers --example whole-process
program=target/release/examples/whole-process
if [ "${1:-}" = list ]; then exec "$program" list; fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ $# -eq 0 ]; then mapfile -t cases < <("$program" list); else cases=("$@"); fi
echo "| case | operations | load s | MB loaded | judge ms | MB at most | verdict |"
echo "|---|---|---|---|---|---|---|"
for case in "${cases[@]}"; do
  "$program" write "$case" "$folder/history.jsonl"
  "$program" judge "$case" "$folder/history.jsonl"
done
