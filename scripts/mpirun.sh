#!/bin/sh
# mpirun.sh - mpirun with the settings that this machine needs: as root, in a container, with fewer cores than ranks.
# They are environment variables of Open MPI; MPIRUN_VERBOSE=1 prints them. A guard ends an mpirun that hangs after its
# ranks have ended. With --restarts, a job that lost a rank or a host is started again.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

usage() {
  as_typed <<'USAGE'
usage: sh scripts/mpirun.sh [--restarts N [--min-ranks M]] MPIRUN'S OPTIONS PROGRAM ARGUMENTS
  --restarts N   if a rank or a host is lost, start the job again, at most N times, on the hosts of --host or
                 --hostfile that answer. A run with --save DIR continues from its newest checkpoint. With this option
                 (--restarts 0, too) SIGTERM makes such a run save and end with exit code 75, and SIGUSR1 makes it save
                 and continue; without it, SIGTERM ends mpirun itself, with exit code 1
  --min-ranks M  give up if the hosts that answer have room for fewer than M ranks (default: the ranks of -n)
  --help         this text; mpirun --help has the other options
examples:
  sh scripts/mpirun.sh -n 2 build/atomo-lua scripts/train_cifar.lua
  sh scripts/mpirun.sh --restarts 3 -n 2 build/atomo-lua scripts/train_cifar.lua --save run --save-every 10m --resume auto
  sh scripts/mpirun.sh --restarts 3 --min-ranks 2 --hostfile hosts -n 4 build/atomo-lua scripts/train_cifar.lua --save run
exit codes: the job's (1, 2 and 130 are not started again); 2 for wrong use of the options above
USAGE
}

misuse() { printf 'mpirun.sh: %s (--help shows the usage)\n' "$*" >&2; exit 2; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

restarts='' min_ranks=''
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --restarts) { [ $# -ge 2 ] && is_number "$2"; } || misuse "--restarts wants a number"; restarts=$2; shift 2 ;;
  --min-ranks)
    { [ $# -ge 2 ] && is_number "$2" && [ "$2" -ge 1 ]; } || misuse "--min-ranks wants a number of at least 1"
    min_ranks=$2; shift 2 ;;
  *) break ;;
  esac
done
[ -z "$min_ranks" ] || [ -n "$restarts" ] || misuse "--min-ranks wants --restarts"
[ $# -gt 0 ] || misuse "there is no program"

# The values of mpirun's options that matter here; killed: seconds between SIGTERM and SIGKILL; own: the number of words
# before the program, which is the first word that is a command and no option's value.
ranks='' hosts='' hostfile='' agent=${OMPI_MCA_plm_rsh_agent:-} killed=${OMPI_MCA_odls_base_sigkill_timeout:-1}
before='' previous='' own=0
for word in "$@"; do
  case $before-$previous in
  -mca-plm_rsh_agent | --mca-plm_rsh_agent) agent=$word ;;
  -mca-odls_base_sigkill_timeout | --mca-odls_base_sigkill_timeout) killed=$word ;;
  -mca-* | --mca-* | -gmca-* | --gmca-*) ;;
  *--n | *--np | *--c) ranks=$word ;;
  *--H | *--host) hosts=$word ;;
  *--hostfile | *--machinefile) hostfile=$word ;;
  *--mca | *--gmca | *--x | *--wd | *--wdir) ;;
  *) case $word in -*) ;; *) if command -v "$word" >/dev/null 2>&1; then break; fi ;; esac ;;
  esac
  before=$previous previous=$word own=$((own + 1))
done
given_ranks=$ranks
ranks=${ranks:-$(cores)}
is_number "$ranks" || die "the number of ranks is '$ranks', expected a whole number"
is_number "$killed" || killed=1
if ! have mpirun; then
  [ ! -f "$root/scripts/quickstart.sh" ] || die "mpirun is missing: sh scripts/quickstart.sh installs it"
  die "mpirun is missing: apt-get install openmpi-bin, as root (Fedora: module load mpi/openmpi-x86_64)"
fi
mpi_settings "$ranks"
if [ -n "${MPIRUN_VERBOSE:-}" ]; then env | grep '^OMPI_' >&2 || true; fi

# If a rank is killed while MPI starts, Open MPI 4.1's mpirun sometimes waits for ever, although all ranks have ended. So
# the guard kills process $1 if it has had children, has none any more, and only sleeps for PATIENCE seconds. An mpirun
# that is only slow, on a busy machine, uses the CPU or waits for it; one that ends its ranks sleeps until SIGKILL is due.
PATIENCE=$((2 + killed))
guard() { # PID
  have ps || return 0 # Debian's package procps
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

if [ -z "$restarts" ]; then # mpirun replaces this process, so that it gets signals and standard input; the guard is not its child
  (guard $$ >/dev/null </dev/null &)
  exec mpirun "$@"
fi

# ---- restarts -------------------------------------------------------------------------------------------------------
[ -z "$hostfile" ] || [ -r "$hostfile" ] || die "cannot read the hostfile $hostfile"
# A lost host or cut cable is noticed after about 10 s, not after 8 minutes.
export OMPI_MCA_oob_tcp_keepalive_time="${OMPI_MCA_oob_tcp_keepalive_time:-5}"
export OMPI_MCA_oob_tcp_keepalive_intvl="${OMPI_MCA_oob_tcp_keepalive_intvl:-2}"
export OMPI_MCA_oob_tcp_keepalive_probes="${OMPI_MCA_oob_tcp_keepalive_probes:-3}"

tell() { printf 'mpirun.sh: %s\n' "$*" >&2; }

is_here() { # HOST
  case $1 in localhost | 127.0.0.1 | "$(uname -n)" | "$(uname -n | cut -d. -f1)") return 0 ;; *) return 1 ;; esac
}

# Does a command on the host return, started as mpirun starts its daemons?
answers() { # HOST
  # shellcheck disable=SC2086
  is_here "$1" || timeout 10 ${agent:-ssh -o BatchMode=yes -o ConnectTimeout=5} "$1" true >/dev/null 2>&1 </dev/null
}

# Prints "HOST RANKS WORD" for each host of --host or --hostfile; WORD is its part of the list, or its line's number.
host_table() {
  if [ -n "$hosts" ]; then
    printf '%s\n' "$hosts" | tr , '\n' | awk -F: 'NF { print $1, ($2 + 0 > 0 ? $2 : 1), $0 }'
  elif [ -n "$hostfile" ]; then
    awk '{ sub(/#.*/, "") } NF { slots = 1; for (i = 2; i <= NF; i++) if ($i ~ /^slots=/) slots = substr($i, 7)
      print $1, slots, NR }' "$hostfile"
  fi
}

if [ -z "$given_ranks" ] && [ -n "$hosts$hostfile" ]; then ranks=$(host_table | awk '{ n += $2 } END { print n + 0 }'); fi
min_ranks=${min_ranks:-$ranks}

# Finds the hosts that answer: sets here_hosts (the new value of --host), here_lines (of the hostfile), lost, and
# here_ranks, the ranks in proportion to the room that is left.
find_hosts() {
  here_hosts='' here_lines='' lost='' here_ranks=$ranks all=0 left=0 known=' '
  for row in $(host_table | tr ' ' '|'); do
    host=${row%%|*} word=${row##*|} room=${row#*|} room=${room%|*}
    case $known in
    *" +$host "*) up=yes ;;
    *" -$host "*) up=no ;;
    *) if answers "$host"; then up=yes known="$known+$host "; else up=no known="$known-$host " lost="$lost $host"; fi ;;
    esac
    all=$((all + room))
    [ "$up" = yes ] || continue
    left=$((left + room)) here_hosts="$here_hosts${here_hosts:+,}$word" here_lines="$here_lines $word"
  done
  [ "$all" = 0 ] || here_ranks=$((ranks * left / all))
}

# Runs mpirun with these arguments in the background, on the hosts that answer; sets job.
launch() {
  count=$# options=$own # words and mpirun's words that are still to be moved to the end
  while [ "$count" -gt 0 ]; do
    word=$1 count=$((count - 1)) options=$((options - 1)) new=''
    shift
    set -- "$@" "$word"
    [ "$options" -gt 0 ] || continue
    case $word in
    -n | -np | --np | -c) new=$here_ranks ;;
    -H | -host | --host) new=$here_hosts ;;
    -hostfile | --hostfile | -machinefile | --machinefile) new=$folder/hosts ;;
    esac
    [ -n "$new" ] || continue
    count=$((count - 1)) options=$((options - 1))
    shift
    set -- "$@" "$new"
  done
  [ -z "${ATOMO_RESTART:-}" ] || set -- -x ATOMO_RESTART "$@"
  [ -n "$given_ranks" ] || [ -z "$lost" ] || set -- -n "$here_ranks" "$@"
  mpirun "$@" <&3 3<&- &
  job=$!
  (guard "$job" >/dev/null </dev/null 3<&- &)
}

# The signal reaches the ranks through mpirun, which kills nobody for SIGUSR2 and all, after a second, for SIGTERM.
stop() { # CODE
  [ -z "$stopped" ] || return 0
  stopped=$1
  if [ -z "$job" ]; then exit "$1"; fi
  if [ "$1" = 130 ]; then kill -INT "$job" 2>/dev/null || true; return 0; fi
  kill -USR2 "$job" 2>/dev/null || true
  (sleep "${ATOMO_GRACE:-30}"; kill -TERM "$job") >/dev/null 2>&1 </dev/null 3<&- &
  late=$!
}

await() { # sets code; a signal to this shell interrupts `wait`
  while :; do
    code=0
    wait "$job" || code=$?
    kill -0 "$job" 2>/dev/null || return 0
  done
}

job='' stopped='' late='' lost='' folder=$(mktemp -d) attempt=0
here_ranks=$ranks here_hosts=$hosts here_lines=$(host_table | awk '{ print $3 }')
exec 3<&0
trap 'rm -rf "$folder"; [ -z "$late" ] || kill "$late" 2>/dev/null || true' EXIT
trap 'stop 143' TERM HUP USR2
trap 'stop 130' INT
trap '[ -z "$job" ] || kill -USR1 "$job" 2>/dev/null || true' USR1
while :; do
  [ -z "$hostfile" ] || awk -v lines=" $(echo $here_lines) " 'index(lines, " " NR " ")' "$hostfile" >"$folder/hosts"
  launch "$@"
  await
  job=''
  [ -z "$stopped" ] || exit "$code"
  case $code in 0 | 1 | 2 | 130) exit "$code" ;; esac
  attempt=$((attempt + 1))
  [ "$attempt" -le "$restarts" ] || { tell "the job ended with code $code, after $restarts restarts: given up"; exit "$code"; }
  find_hosts
  [ -z "$lost" ] || tell "no answer from$lost"
  [ "$here_ranks" -ge "$min_ranks" ] || { tell "there is room for $here_ranks ranks, --min-ranks is $min_ranks: given up"; exit "$code"; }
  tell "the job ended with code $code: restart $attempt of $restarts with $here_ranks ranks${here_hosts:+ on $here_hosts}"
  export ATOMO_RESTART="$attempt"
done
