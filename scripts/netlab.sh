#!/bin/sh
# netlab.sh - a network on one machine: N hosts (network namespaces) on a switch (a bridge), with every link limited to
# RATE by a token bucket on both ends, and mpirun with one rank per host. It shows the effect of compression on slow
# links. The switch is in a namespace, too, so that the machine's own network is not changed. Needs root.
set -eu

usage() {
  root=${here%/*}
  . "$here/lib.sh"
  as_typed <<'USAGE'
usage: sh scripts/netlab.sh run N RATE [options] -- COMMAND...   up, exec, down in one: always cleans up
       sh scripts/netlab.sh up N RATE [--name NAME] [--delay T]  builds the network and leaves it
       sh scripts/netlab.sh exec [options] -- COMMAND...         mpirun COMMAND on a network, one rank per host
       sh scripts/netlab.sh on HOST [--name NAME] -- COMMAND...  COMMAND alone, on host 1, 2, ...
       sh scripts/netlab.sh down [--name NAME]                   ends its processes and removes the network
  N              2 to 64 hosts, 10.78.0.1 to 10.78.0.N, named h1 to hN
  RATE           rate of every link, each way: 500kbit, 100mbit, 10gbit, or none (not shaped)
  --delay T      adds T to round trips between hosts: 40ms (across a country), 100ms (across an ocean)
  --per-host K   ranks per host (default 1); ranks of one host share memory
  --mca KEY VAL  passed to mpirun
  --name NAME    name of the network (default lab), for several networks at once
examples:
  sh scripts/netlab.sh run 4 100mbit -- build/atomo-lua scripts/train_cifar.lua --model resnet18 --batch 16 --threads 1
  sh scripts/netlab.sh run 4 1gbit -- build/atomo-lua scripts/bench_exchange.lua
  sh scripts/netlab.sh run 2 100mbit --delay 40ms -- build/atomo-lua scripts/bench_exchange.lua
  sh scripts/netlab.sh up 2 10mbit; sh scripts/netlab.sh on 1 -- ping -c 3 10.78.0.2; sh scripts/netlab.sh down
exit codes: COMMAND's; 2 misuse; 77 if this machine does not allow networks (no root, no namespaces, no tbf)
USAGE
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
self=$here/${0##*/}
net=10.78.0

misuse() { printf 'netlab: %s (--help shows the usage)\n' "$*" >&2; exit 2; }
cannot() { printf 'netlab: skipped: %s\n' "$*" >&2; exit 77; }
is_number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }
space() { echo "atomo-$name-$1"; } # the namespace of host 1, 2, ... or of the switch

# Prints the bits per second of a rate such as 100mbit.
bits() {
  printf '%s\n' "$1" | awk '
    match($0, /^[0-9]+(\.[0-9]+)?/) { n = substr($0, 1, RLENGTH); unit = tolower(substr($0, RLENGTH + 1)) }
    END { f["bit"] = 1; f["kbit"] = 1e3; f["mbit"] = 1e6; f["gbit"] = 1e9
          if (!(unit in f) || n * f[unit] < 8000) exit 1; printf "%.0f\n", n * f[unit] }'
}

# ---- up and down ----------------------------------------------------------------------------------------------------
# The bucket holds a millisecond's bytes, at least 128 kB: one segment with segmentation offload.
shape() { # NAMESPACE DEVICE
  [ "$rate" != none ] || return 0
  burst=$((rate_bits / 8000))
  [ "$burst" -ge 131072 ] || burst=131072
  ip netns exec "$1" tc qdisc add dev "$2" root tbf rate "$rate" burst "$burst" latency 100ms
}

# With a delay the cable of a host ends at device wireK, and another one begins at relayK: netlab/delay.lua connects them.
mac() { printf '02:00:0a:4e:00:%02x\n' "$1"; } # the hardware address of a host

# The hosts know each other's hardware addresses. If they had to learn them, 64 hosts would overflow the kernel's table,
# which all networks of a machine share (1024 entries), and connections would fail.
introduce() { # HOST
  k=1
  while [ "$k" -le "$hosts" ]; do
    [ "$k" = "$1" ] || echo "neigh add $net.$k lladdr $(mac "$k") dev eth0 nud permanent"
    k=$((k + 1))
  done | ip -n "$(space "$1")" -batch -
}

add_host() {
  host=$(space "$1") switch=$(space switch)
  ip netns add "$host" && ip -n "$host" link set lo up
  if [ "$delay" = 0 ]; then
    ip link add eth0 address "$(mac "$1")" netns "$host" type veth peer name "port$1" netns "$switch"
  else
    ip link add eth0 address "$(mac "$1")" netns "$host" type veth peer name "wire$1" netns "$switch"
    ip link add "relay$1" netns "$switch" type veth peer name "port$1" netns "$switch"
    ip -n "$switch" link set "wire$1" up && ip -n "$switch" link set "relay$1" up
  fi
  ip -n "$host" addr add "$net.$1/24" dev eth0 && ip -n "$host" link set eth0 up
  ip -n "$switch" link set "port$1" master bridge up
  shape "$host" eth0 && shape "$switch" "port$1"
}

build() {
  ip netns add "$(space switch)" && ip -n "$(space switch)" link add bridge type bridge stp_state 0 &&
    ip -n "$(space switch)" link set bridge up || return 1
  k=1
  while [ "$k" -le "$hosts" ]; do add_host "$k" || return 1; k=$((k + 1)); done
  k=1
  while [ "$k" -le "$hosts" ]; do (introduce "$k") || return 1; k=$((k + 1)); done
}

# Prints half of a time such as 40ms in milliseconds.
half_of() {
  printf '%s\n' "$1" | awk '
    match($0, /^[0-9]+(\.[0-9]+)?/) { n = substr($0, 1, RLENGTH); unit = substr($0, RLENGTH + 1) }
    END { f["us"] = 1e-3; f["ms"] = 1; f["s"] = 1e3
          if (!(unit in f) || n * f[unit] > 10000) exit 1; printf "%g\n", n * f[unit] / 2 }'
}

# Starts the program that delays packets, and waits until it is ready.
start_delay() {
  lua=$here/../build/atomo-lua
  [ -x "$lua" ] || lua=$(command -v atomo-lua) || misuse "--delay wants build/atomo-lua, or atomo-lua in PATH"
  log=$(mktemp)
  ip netns exec "$(space switch)" nice -n -10 "$lua" "$here/netlab/delay.lua" "$delay" "$hosts" >"$log" 2>&1 </dev/null &
  relay=$! k=0
  until grep -q '^ready' "$log" || ! kill -0 "$relay" 2>/dev/null || [ "$k" = 200 ]; do sleep 0.05; k=$((k + 1)); done
  why=$(cat "$log"); rm -f "$log"
  case $why in ready*) ;; *) down; cannot "no delay on this machine: $why" ;; esac
}

up() {
  [ "$(id -u)" = 0 ] || cannot "making networks needs root"
  for program in ip tc unshare; do
    command -v "$program" >/dev/null 2>&1 || cannot "there is no $program here (Debian: apt-get install iproute2 util-linux)"
  done
  sweep
  [ -z "$(spaces)" ] || misuse "a network called '$name' is up already: netlab.sh down --name $name"
  # shellcheck disable=SC2310
  if ! why=$(build 2>&1); then down; cannot "this machine does not allow it: $(printf '%s' "$why" | tail -n 1)"; fi
  [ "$delay" = 0 ] || start_delay
}

spaces() { ip netns list 2>/dev/null | awk -v p="atomo-$name-" 'index($1, p) == 1 { print $1 }'; }

down() {
  for s in $(spaces); do
    for pid in $(ip netns pids "$s"); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns delete "$s" || true
  done
}

# Removes networks whose `run` was killed before it cleaned up; their names have its process number.
sweep() {
  for pid in $(ip netns list | sed -n 's/^atomo-run\([0-9]*\)-switch.*/\1/p'); do
    kill -0 "$pid" 2>/dev/null || (name=run$pid; down)
  done
}

# ---- running --------------------------------------------------------------------------------------------------------
# Runs a command on a host: in its network, and with its host name, by which mpirun distinguishes hosts.
on_host() { # HOST COMMAND...
  number=${1#h}; shift
  # shellcheck disable=SC2016
  exec ip netns exec "$(space "$number")" unshare --uts sh -c 'hostname "$0" && exec "$@"' "h$number" "$@"
}

# Settings of Open MPI: daemons are started by this script, traffic uses the shaped links only, waiting ranks yield (hosts
# share this machine's cores), mpirun detects a cut cable after some seconds (keepalive), one thread per rank by default.
launch() { # COMMAND...
  list='' k=1
  while [ "$k" -le "$hosts" ]; do list="$list${list:+,}h$k:$per_host"; k=$((k + 1)); done
  case $here in *[[:space:]]*) misuse "mpirun cannot start daemons by a script whose path has blanks: $self" ;; esac
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 RES_OPTIONS="timeout:1 attempts:1"
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  # shellcheck disable=SC2086
  set -- mpirun -n $((hosts * per_host)) --host "$list" --mca plm_rsh_agent "$self agent $name" \
    --mca plm_rsh_no_tree_spawn 1 --mca btl tcp,self,vader --mca btl_vader_single_copy_mechanism none \
    --mca btl_tcp_if_include "$net.0/24" --mca oob_tcp_if_include "$net.0/24" --mca mpi_yield_when_idle 1 \
    --mca oob_tcp_keepalive_time 1 --mca oob_tcp_keepalive_intvl 1 --mca oob_tcp_keepalive_probes 2 \
    --bind-to none -x OMP_NUM_THREADS $mca "$@"
  (on_host 1 "$@")
}

count_hosts() {
  hosts=$(spaces | grep -cv -- '-switch$' || true)
  [ "$hosts" -gt 0 ] || misuse "no network called '$name' is up: netlab.sh up N RATE"
}

# ---- arguments ------------------------------------------------------------------------------------------------------
verb=${1:-}
[ $# = 0 ] || shift
case $verb in
agent) # called by mpirun instead of ssh: agent NAME HOST COMMAND...
  name=$1 host=$2; shift 2
  # like ssh, it does not reach a host that is cut off
  ip -n "$(space "${host#h}")" link show eth0 up 2>/dev/null | grep -q . || { echo "netlab: no route to $host" >&2; exit 255; }
  on_host "$host" sh -c "$*" ;;
run | up | exec | on | down) ;;
'' | -h | --help | help) usage; exit 0 ;;
*) misuse "unknown command '$verb', expected run, up, exec, on or down" ;;
esac

name=lab per_host=1 delay=0 delayed= mca=
case $verb in
run | up)
  [ $# -ge 2 ] || misuse "$verb wants N and RATE"
  hosts=$1 rate=$2; shift 2
  { is_number "$hosts" && [ "$hosts" -ge 2 ] && [ "$hosts" -le 64 ]; } || misuse "N is '$hosts', expected 2 to 64 hosts"
  [ "$rate" = none ] || rate_bits=$(bits "$rate") || misuse "RATE is '$rate', expected e.g. 100mbit, 1gbit or none" ;;
on)
  [ $# -ge 1 ] && is_number "${1#h}" || misuse "on wants a host: 1, 2, ..."
  target=${1#h}; shift ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
  --) shift; break ;;
  -h | --help) usage; exit 0 ;;
  --name) [ $# -ge 2 ] || misuse "--name wants a name"; name=$2; shift ;;
  --delay)
    case $verb in run | up) ;; *) misuse "--delay is for run and up" ;; esac
    [ $# -ge 2 ] && delay=$(half_of "$2") && delayed=$2 || misuse "--delay is '${2:-}', expected e.g. 40ms, up to 10s"
    shift ;;
  --per-host) { [ $# -ge 2 ] && is_number "$2" && [ "$2" -ge 1 ]; } || misuse "--per-host wants a number"; per_host=$2; shift ;;
  --mca) [ $# -ge 3 ] || misuse "--mca wants a key and a value"; mca="$mca --mca $2 $3"; shift 2 ;;
  *) misuse "unexpected '$1'; the command goes behind --" ;;
  esac
  shift
done
case $name in '' | *[!a-z0-9]*) misuse "the name '$name' has other characters than a-z and 0-9" ;; esac
case $verb in run | exec | on) [ $# -gt 0 ] || misuse "$verb wants a command behind --" ;; esac

case $verb in
up) up; echo "netlab: '$name' is up: $hosts hosts, $net.1 to $net.$hosts, links of $rate${delayed:+, round trips longer by $delayed}" ;;
down) down ;;
on) count_hosts; [ "$target" -ge 1 ] && [ "$target" -le "$hosts" ] || misuse "host $target, there are 1 to $hosts"; on_host "$target" "$@" ;;
exec) count_hosts; launch "$@" ;;
run)
  name=run$$
  trap down EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  up
  launch "$@" & # in the background, so that the shell handles a signal at once
  wait $! ;;
esac
