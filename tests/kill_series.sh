#!/bin/sh
# kill_series.sh - repeatedly kills a random rank of a training job (kill -9) at a random moment. Each time the job must
# end within 5 seconds with an exit code other than 0, leave no process, and leave a complete last checkpoint. The
# moments are after MPI has started on all ranks; with --starting, after all processes exist and while MPI starts. If a
# rank is killed then, Open MPI 4.1.4's mpirun sometimes hangs (in a futex, with "PMIX ERROR: UNREACHABLE"), although
# all ranks have ended; scripts/mpirun.sh, which starts the jobs here, ends it. With --chain each job resumes what the one
# before has left; the last one is not killed, and must end bit-identical to a job that never was.
set -eu

usage() {
  cat <<USAGE
usage: sh tests/kill_series.sh [--kills N] [--ranks N] [--within SECONDS] [--seed N] [--host PATH] [--starting | --chain]
  --kills N          how often (50)
  --ranks N          ranks of a job (4)
  --within SECONDS   the latest moment after the ranks have met (3; with --starting: after their start, 0.5)
  --seed N           of ranks and moments (1)
  --patience FACTOR  of the 5 seconds, on a busy machine (1)
  --host PATH        the program (build/atomo-lua)
  --starting         kill while MPI starts
  --chain            resume after each kill; in the end compare with a job that was not killed (--within 1.5)
Ends with the line "N passed, N failed".
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
kills=50 ranks=4 within='' starting='' chain='' seed=1 patience=1 host=$root/build/atomo-lua
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --starting) starting=yes ;;
  --chain) chain=yes ;;
  --kills | --ranks | --within | --seed | --patience | --host)
    [ $# -ge 2 ] || die "$1 wants a value"
    eval "${1#--}=\$2"
    shift ;;
  *) usage >&2; die "unknown option '$1'" ;;
  esac
  shift
done
[ -x "$host" ] || die "there is no program $host"
[ -z "$starting" ] || [ -z "$chain" ] || die "--starting and --chain exclude each other"
[ -n "$within" ] || within=$(if [ -n "$starting" ]; then echo 0.5; elif [ -n "$chain" ]; then echo 1.5; else echo 3; fi)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

alive() { # PID...: prints those that still run (not zombies)
  for p in "$@"; do
    case $(ps -o stat= -p "$p" 2>/dev/null) in '' | Z*) ;; *) printf '%s ' "$p" ;; esac
  done
}

milliseconds() { date +%s%3N; }

# Starts the job. EPOCHS: it ends after that many, resumes what it finds, and prints digests; empty: it does not end.
run() { # FOLDER [EPOCHS]
  exec sh "$root/scripts/mpirun.sh" --oversubscribe -n "$ranks" "$host" "$root/tests/support/fault_job.lua" "$@" </dev/null
}

# Prints what is wrong with the checkpoints in a folder.
check_checkpoints() { # FOLDER
  "$host" - "$1" <<'LUA' 2>&1
    local disk, manifest = require "atomo.train.checkpoint.disk", require "atomo.train.checkpoint.manifest"
    for _, name in ipairs(disk.kind(...) and disk.names(...) or {}) do
      local folder = (...) .. "/" .. name
      local body, why = nil, nil
      if name:match "^step%-%d+$" then body, why = manifest.read(folder) end
      for _, entry in ipairs(body and body.files or {}) do why = why or manifest.problem(folder, entry) end
      if why then print(folder .. ": " .. why) end
    end
LUA
}

# Prints the job's ranks: children of mpirun that run the program.
ranks_of_job() { ps -o pid= -o comm= --ppid "$job" | awk -v name="${host##*/}" '$2 == name { print $1 }'; }

ready() {
  if [ -n "$starting" ]; then [ "$(ranks_of_job | wc -l)" -eq "$ranks" ]; else [ -f "$folder/checkpoint.up" ]; fi
}

# Waits until the ranks exist, or until MPI has started on them; prints their process numbers.
find_ranks() {
  tries=0
  until ready || [ "$tries" -ge 1500 ]; do tries=$((tries + 1)); sleep 0.02; done
  ranks_of_job
}

passed=0 failed=0 slowest=0 saved=0 k=0
while [ "$k" -lt "$kills" ]; do
  k=$((k + 1))
  # shellcheck disable=SC2046
  set -- $(awk -v s="$seed" -v k="$k" -v n="$ranks" -v w="$within" 'BEGIN { srand(s * 1000 + k); rand(); print int(rand() * n), rand() * w }')
  victim=$1 moment=$2
  if [ -n "$chain" ]; then rm -f "$folder/checkpoint.up"; else rm -rf "$folder"/*; fi
  (run "$folder/checkpoint" ${chain:+1000000}) >"$folder/out" 2>&1 & # it does not end before it is killed
  job=$!
  pids=$(find_ranks)
  sleep "$moment"
  # shellcheck disable=SC2086
  set -- $pids
  [ $# -eq "$ranks" ] || { kill "$job"; die "the job did not start: $(cat "$folder/out")"; }
  shift "$victim"
  kill -9 "$1" || die "the job ended by itself: $(cat "$folder/out")"
  from=$(milliseconds) rc=0
  (sleep $((20 * patience)); kill -9 "$job") >/dev/null 2>&1 </dev/null & guard=$!
  wait "$job" 2>/dev/null || rc=$?
  took=$(($(milliseconds) - from))
  kill "$guard" 2>/dev/null || true
  # shellcheck disable=SC2086
  left=$(alive $pids)
  tries=0
  while [ -n "$left" ] && [ "$tries" -lt $((10 * patience)) ]; do tries=$((tries + 1)); sleep 0.1; left=$(alive $pids); done
  why=
  [ "$rc" != 0 ] || why="exit code 0"
  [ "$took" -le $((5000 * patience)) ] || why="$why $took ms"
  [ -z "$left" ] || why="$why; processes left: $left"
  wrong=$(check_checkpoints "$folder/checkpoint") || true
  why=$why${wrong:+"; $wrong"}
  for step in "$folder"/checkpoint/step-*; do
    case $step in *.partial | *.replaced | *.removed | *'*') ;; *) saved=$((saved + 1)) ;; esac
  done
  [ "$took" -le "$slowest" ] || slowest=$took
  if [ -z "$why" ]; then passed=$((passed + 1)); else
    failed=$((failed + 1))
    echo "kill $k: rank $victim after $moment s: $why"
    tail -n 5 "$folder/out"
    # shellcheck disable=SC2086
    [ -z "$left" ] || kill -9 $left 2>/dev/null || true
  fi
done
if [ -n "$chain" ]; then
  # The last job goes some epochs beyond the newest checkpoint, as far as a fast machine has come. fault_job.lua takes 4
  # of 64 samples a rank and step.
  step=$(sed -n 's/.*step-\([0-9]*\).*/\1/p' "$folder/checkpoint/latest" 2>/dev/null) || true
  epochs=$((${step:-0} * 4 * ranks / 64 + 4))
  (run "$folder/checkpoint" "$epochs") >"$folder/out" 2>&1 || { cat "$folder/out"; die "the last job failed"; }
  (run "$folder/whole" "$epochs") >"$folder/whole.out" 2>&1 || { cat "$folder/whole.out"; die "the whole job failed"; }
  grep '^END ' "$folder/out" | sort >"$folder/end" || true
  grep '^END ' "$folder/whole.out" | sort >"$folder/whole.end" || true
  if [ -s "$folder/end" ] && cmp -s "$folder/end" "$folder/whole.end"; then
    echo "resumed: $(grep -o 'resuming after .*, from' "$folder/out"); $(head -n 1 "$folder/end"), as without kills"
  else
    failed=$((failed + 1))
    echo "after $kills kills the job ends otherwise than one without:"
    cat "$folder/end" "$folder/whole.end"
  fi
fi
echo "slowest end: $slowest ms after the kill; $saved checkpoints left, each complete"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
