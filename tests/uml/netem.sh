#!/usr/bin/env bash
# Real netem for real: the whole tester in a virtual machine whose kernel has sch_netem, whatever this machine's has.
#
#   tests/uml/netem.sh target/release/tribunal
#
# Needs what tests/uml/run.sh needs. Succeeds if the run is valid, every kind of fault was seen to bite and to heal, and
# nothing stood in for netem. Takes about two minutes.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
program=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cp "$here/netem.yaml" .

"$here/run.sh" --timeout 240 -- "$program" run ./netem.yaml --seed 11 --store store | tee report.txt
if grep -q 'stand-in:' report.txt; then
  echo "error: something stood in for netem" >&2
  exit 1
fi
python3 - store/latest/results.json <<'CHECK'
import json, sys
faults = json.load(open(sys.argv[1]))["faults"]
seen = {f["kind"] for f in faults if f["effect"]["seen"] and f["healed"]["seen"]}
missing = {"slow", "duplicate", "reorder", "corrupt"} - seen
if missing:
    sys.exit(f"error: not seen to bite and heal: {', '.join(sorted(missing))}")
CHECK
