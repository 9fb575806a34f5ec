#!/bin/sh
# bench_network.sh - times bench_ddp.py on simulated networks of several rates, and prints one table. Needs root.
set -eu

usage() {
  cat <<'USAGE'
usage: sh examples/pytorch/bench_network.sh [--hosts N] [--rates 'RATE RATE'] [-- OPTIONS OF bench_ddp.py]
  --hosts N      hosts, one process each (default 4)
  --rates RATES  rates of all links, separated by blanks (default '100mbit 1gbit'); see scripts/netlab.sh
PYTHON names the Python with PyTorch (default /usr/bin/python3).
example:
  sh examples/pytorch/bench_network.sh -- --model resnet18 --batch 16 --compress auto:ratio=64
exit codes: 2 misuse; 77 if this machine does not allow networks
USAGE
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
hosts=4 rates='100mbit 1gbit'
while [ $# -gt 0 ]; do
  case $1 in
  --hosts | --rates)
    [ $# -ge 2 ] || { echo "bench_network: $1 needs a value (--help shows the usage)" >&2; exit 2; }
    case $1 in --hosts) hosts=$2 ;; --rates) rates=$2 ;; esac
    shift 2 ;;
  -h | --help) usage; exit 0 ;;
  --) shift; break ;;
  *) echo "bench_network: unknown option '$1' (--help shows the usage)" >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || set -- --model resnet18 --batch 16 --steps 3 --rounds 3 --hooks 'ddp powersgd' --compress auto:ratio=64
case " $* " in *' --compress '*) ;; *) set -- "$@" --compress auto:ratio=64 ;; esac

out=$(mktemp)
trap 'rm -f "$out"' EXIT
titled=
for rate in $rates; do
  code=0
  sh "$root/scripts/netlab.sh" run "$hosts" "$rate" -- env MASTER_ADDR=10.78.0.1 GLOO_SOCKET_IFNAME=eth0 \
    "${PYTHON:-/usr/bin/python3}" "$here/bench_ddp.py" "$@" >"$out" 2>&1 || code=$?
  [ "$code" = 0 ] || { cat "$out" >&2; exit "$code"; }
  [ -n "$titled" ] || sed -n -e 's/\r$//' -e '/^settings: /p' -e '/processes, PyTorch/p' "$out"
  awk -v rate="$rate" -v titled="$titled" '
    { sub(/\r$/, "") }
    /^way / { if (!titled) printf "%-8s %s\n", "rate", $0; rows = 1; next }
    rows && / [0-9]+\.[0-9] / { printf "%-8s %s\n", rate, $0 }' "$out"
  titled=1
done
