#!/bin/sh
# mpirun.sh -n RANKS ... - mpirun with the settings that this machine needs: as root, in a container, with fewer cores
# than ranks. They are environment variables of Open MPI; MPIRUN_VERBOSE=1 prints them. A guard ends an mpirun that hangs
# after its ranks have ended.
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

# If a rank is killed while MPI starts, Open MPI 4.1's mpirun sometimes waits for ever, although all ranks have ended. So
# the guard kills process $1 if it has had children, has none any more, and only sleeps for PATIENCE seconds. An mpirun
# that is only slow, on a busy machine, uses the CPU or waits for it.
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

# Prints the state of a process: parent (it has live children), "sleeps TIME" (TIME: CPU time used so far), or runs. Fails
# if the process has ended.
state_of() { # PID
  ps -A -o pid= -o ppid= -o stat= -o time= | awk -v pid="$1" '
    $3 ~ /^Z/ { next }
    $2 == pid { parent = 1 }
    $1 == pid { there = 1; text = $3 ~ /^S/ ? "sleeps " $4 : "runs" }
    END { print (parent ? "parent" : text); exit !there }'
}

# mpirun replaces this process, so that it gets signals and standard input; the guard is not its child.
(guard $$ >/dev/null </dev/null &)
exec mpirun "$@"
