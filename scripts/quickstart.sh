#!/bin/sh
# quickstart.sh - from a new machine to a trained network: installs missing packages (by apt; elsewhere it prints their
# names), builds, and trains on two ranks with the built-in data set. It can be repeated; finished steps are skipped.
set -eu

ranks=2
job="scripts/train_cifar.lua --model resnet20 --epochs 4" # on the built-in synthetic set, with the default compressor

usage() {
  cat <<USAGE
usage: sh scripts/quickstart.sh [--no-run] [-- options of train_cifar.lua]
Installs the packages that are missing, builds, and runs
  mpirun -n $ranks build/atomo-lua $job
  --no-run   stop after the build
  -- ...     other options for the job, for example:  -- --epochs 1 --compress none
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

run=1
while [ $# -gt 0 ]; do
  case $1 in
  --no-run) run= ;;
  -h | --help) usage; exit 0 ;;
  --) shift; break ;;
  *) usage >&2; die "unknown option '$1'" ;;
  esac
  shift
done

start=$(now)
ensure_packages "build" "extra"
installed=$(now)
build_preset release build all
built=$(now)
if [ -n "$run" ]; then
  cd "$root"
  say "running: mpirun -n $ranks build/atomo-lua $job $*"
  # shellcheck disable=SC2086
  sh scripts/mpirun.sh -n "$ranks" build/atomo-lua $job "$@"
fi
end=$(now)
say "done in $((end - start)) s: packages $((installed - start)), build $((built - installed)), training $((end - built))"
say "next: sh scripts/test.sh runs every test; build/atomo-lua scripts/train_cifar.lua --help names the options"
