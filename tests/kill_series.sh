#!/bin/sh
# kill_series.sh - kills a random rank of a training job (kill -9) at a random moment, again and again. Every time the
# job must be gone within 5 seconds, with a code other than 0, no process left, and its last checkpoint whole.
# Moments begin where all ranks are through MPI's own start: when a rank is killed before, Open MPI 4.1.4's mpirun itself
# hangs now and then (in a futex, with "PMIX ERROR: UNREACHABLE"), although every rank is gone.
set -eu

usage() {
  cat <<USAGE
usage: sh tests/kill_series.sh [--kills N] [--ranks N] [--within SECONDS] [--seed N] [--host PATH]
  --kills N          how often (50)
  --ranks N          ranks of a job (4)
  --within SECONDS   the latest moment after the ranks have met (3)
  --seed N           of ranks and moments (1)
  --host PATH        the program (build/atomo-lua)
Ends with the line "N passed, N failed".
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
kills=50 ranks=4 within=3 seed=1 host=$root/build/atomo-lua
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --kills | --ranks | --within | --seed | --host)
    [ $# -ge 2 ] || die "$1 wants a value"
    eval "${1#--}=\$2"
    shift ;;
  *) usage >&2; die "unknown option '$1'" ;;
  esac
  shift
done
[ -x "$host" ] || die "there is no program $host"
mpi_settings "$ranks"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

alive() { # PID...: those that are left (a zombie is none)
  for p in "$@"; do
    case $(ps -o stat= -p "$p" 2>/dev/null) in '' | Z*) ;; *) printf '%s ' "$p" ;; esac
  done
}

milliseconds() { date +%s%3N; }

# Waits for the job's ranks to meet; their process numbers.
find_ranks() {
  tries=0
  until [ -f "$folder/checkpoint.up" ] || [ "$tries" -ge 300 ]; do tries=$((tries + 1)); sleep 0.1; done
  ps -o pid= --ppid "$job"
}

passed=0 failed=0 slowest=0 k=0
while [ "$k" -lt "$kills" ]; do
  k=$((k + 1))
  # shellcheck disable=SC2046
  set -- $(awk -v s="$seed" -v k="$k" -v n="$ranks" -v w="$within" 'BEGIN { srand(s * 1000 + k); rand(); print int(rand() * n), rand() * w }')
  victim=$1 moment=$2
  rm -f "$folder"/*
  mpirun --oversubscribe -n "$ranks" "$host" "$root/tests/support/fault_job.lua" "$folder/checkpoint" >"$folder/out" 2>&1 </dev/null &
  job=$!
  pids=$(find_ranks)
  sleep "$moment"
  # shellcheck disable=SC2086
  set -- $pids
  [ $# -eq "$ranks" ] || { kill "$job"; die "the job did not start: $(cat "$folder/out")"; }
  shift "$victim"
  kill -9 "$1" || die "the job ended by itself: $(cat "$folder/out")"
  from=$(milliseconds) rc=0
  (sleep 20; kill -9 "$job") >/dev/null 2>&1 </dev/null & guard=$!
  wait "$job" 2>/dev/null || rc=$?
  took=$(($(milliseconds) - from))
  kill "$guard" 2>/dev/null || true
  # shellcheck disable=SC2086
  left=$(alive $pids)
  [ -z "$left" ] || { sleep 1; left=$(alive $pids); }
  why=
  [ "$rc" != 0 ] || why="exit code 0"
  [ "$took" -le 5000 ] || why="$why $took ms"
  [ -z "$left" ] || why="$why; processes left: $left"
  if [ -f "$folder/checkpoint" ]; then
    "$host" -e "require('atomo.safetensors').load('$folder/checkpoint')" >"$folder/load" 2>&1 || why="$why; checkpoint: $(cat "$folder/load")"
  fi
  [ "$took" -le "$slowest" ] || slowest=$took
  if [ -z "$why" ]; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "kill $k: rank $victim after $moment s: $why"
    tail -n 5 "$folder/out"
    # shellcheck disable=SC2086
    [ -z "$left" ] || kill -9 $left 2>/dev/null || true
  fi
done
echo "slowest end: $slowest ms after the kill"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
