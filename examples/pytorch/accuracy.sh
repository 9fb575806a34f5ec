#!/bin/sh
# accuracy.sh - test accuracy after equal steps: DistributedDataParallel by itself and with compressors, for several
# seeds, and the same training by the Lua program. Prints a row as soon as its runs are done.
set -eu

usage() {
  cat <<'USAGE'
usage: sh examples/pytorch/accuracy.sh [options] [-- OPTIONS OF train_cifar.py AND train_cifar.lua]
  --data DIR        folder of CIFAR-10's binary files; if absent: generated
  --seeds LIST      seeds, separated by blanks (default '3 4 5')
  --compress SPECS  compressors, separated by blanks (default 'auto:ratio=64'); none is always trained
  --lua             also trains by build/atomo-lua, under mpirun
PYTHON names the Python with PyTorch (default /usr/bin/python3).
example:
  sh examples/pytorch/accuracy.sh --data cifar-10-batches-bin --lua -- --model resnet20 --epochs 10
USAGE
}

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
data='' seeds='3 4 5' specs=auto:ratio=64 programs=pytorch
while [ $# -gt 0 ]; do
  case $1 in
  --data | --seeds | --compress)
    [ $# -ge 2 ] || { echo "accuracy: $1 needs a value (--help shows the usage)" >&2; exit 2; }
    case $1 in --data) data=$2 ;; --seeds) seeds=$2 ;; --compress) specs=$2 ;; esac
    shift 2 ;;
  --lua) programs='pytorch lua'; shift ;;
  -h | --help) usage; exit 0 ;;
  --) shift; break ;;
  *) echo "accuracy: unknown option '$1' (--help shows the usage)" >&2; exit 2 ;;
  esac
done
[ $# -gt 0 ] || set -- --model resnet20 --epochs 10
[ -z "$data" ] || set -- --data "$data" "$@"

# Two processes of one thread each.
train() { # PROGRAM OPTIONS...
  program=$1; shift
  case $program in
  pytorch) "${PYTHON:-/usr/bin/python3}" "$here/train_cifar.py" --processes 2 --threads 1 "$@" ;;
  lua) sh "$root/scripts/mpirun.sh" -n 2 "$root/build/atomo-lua" "$root/scripts/train_cifar.lua" --threads 1 "$@" ;;
  esac
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT
printf '%-8s %-24s %s\n' program compressor "seeds $seeds, mean"
for program in $programs; do
  for spec in none $specs; do
    row=''
    for seed in $seeds; do
      train "$program" --compress "$spec" --seed "$seed" "$@" >"$out" 2>&1 || { cat "$out" >&2; exit 1; }
      row="$row $(sed -n 's/.*final test accuracy \([0-9.]*\).*/\1/p' "$out" | tail -n 1)"
    done
    printf '%-8s %-24s%s\n' "$program" "$spec" \
      "$(echo "$row" | awk '{ for (i = 1; i <= NF; i++) { printf " %s", $i; sum += $i } printf "  %.4f", sum / NF }')"
  done
done
