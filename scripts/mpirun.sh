#!/bin/sh
# mpirun.sh -n RANKS ... - mpirun with the settings that this machine needs: as root, in a container, with fewer cores
# than ranks. They are environment variables of Open MPI; printed with MPIRUN_VERBOSE=1. And with a guard: an mpirun that
# outlives its ranks is ended.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

ranks=$(cores) previous=
for word in "$@"; do
  case $previous in -n | -np | --np | -c) ranks=$word; break ;; esac
  previous=$word
done
case $ranks in '' | *[!0-9]*) die "the number of ranks is '$ranks', expected a whole number" ;; esac
have mpirun || die "mpirun is missing: sh scripts/quickstart.sh installs it"
mpi_settings "$ranks"
if [ -n "${MPIRUN_VERBOSE:-}" ]; then env | grep '^OMPI_' >&2 || true; fi

# A rank that is killed while MPI starts leaves Open MPI 4.1's mpirun waiting for ever, now and then, with every rank
# gone. So: where process $1 has had children, has none left, and for PATIENCE seconds does nothing but sleep, it is
# ended. One that is only slow, on a busy machine, uses the CPU or waits for it.
PATIENCE=3
guard() { # PID
  had=no idle=0 before=
  while state=$(state_of "$1"); do
    case $state in
    parent) had=yes idle=0 ;;
    sleeps*) if [ "$had" = yes ] && [ "$state" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi ;;
    *) idle=0 ;;
    esac
    before=$state
    if [ "$idle" -ge $((2 * PATIENCE)) ]; then
      echo "mpirun.sh: every rank is gone, but mpirun (pid $1) has hung for $PATIENCE s: ended. Did a rank die while MPI started?" >&2
      kill -9 "$1"
      return
    fi
    sleep 0.5
  done
}

# What a process does: parent (it has children that live), "sleeps TIME" (and has used the CPU for TIME), runs; fails
# where it is gone.
state_of() { # PID
  ps -A -o pid= -o ppid= -o stat= -o time= | awk -v pid="$1" '
    $3 ~ /^Z/ { next }
    $2 == pid { parent = 1 }
    $1 == pid { there = 1; text = $3 ~ /^S/ ? "sleeps " $4 : "runs" }
    END { print (parent ? "parent" : text); exit !there }'
}

# mpirun takes this process's place, so that signals and standard input are its own; the guard is no child of it.
(guard $$ >/dev/null </dev/null &)
exec mpirun "$@"
