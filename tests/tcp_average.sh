#!/bin/sh
# tcp_average.sh BUILD_DIR - examples/c/tcp_average.c: three processes on this host train through TCP and end with the same
# weights; what is wrong is refused. Prints "N passed, N failed".
set -u
program=$(cd "${1:?usage: tcp_average.sh BUILD_DIR}" && pwd)/tests/tcp_average || exit 2
room=$(mktemp -d)
started=
end() {
  for p in $started; do kill "$p" 2>/dev/null; done
  rm -rf "$room"
}
trap end EXIT
export OMP_NUM_THREADS=1
passed=0 failed=0

check() { # NAME COMMAND...
  name=$1; shift
  if "$@"; then passed=$((passed + 1)); return; fi
  failed=$((failed + 1))
  echo "failed: $name"
  for f in "$room"/*; do sed "s|^|    ${f##*/}: |" "$f"; done
}

# serve RANKS [ATOMS RATIO]: starts rank 0 on a free port; sets port.
serve() {
  n=$1; shift
  rm -f "$room"/*
  timeout 60 "$program" 0 "$n" 127.0.0.1 0 "$@" >"$room/0" 2>&1 & first=$!
  started="$started $first" port=
  tries=0
  while [ -z "$port" ] && [ "$tries" -lt 100 ]; do
    sleep 0.1
    tries=$((tries + 1))
    port=$(sed -n 's/^listening on port //p' "$room/0")
  done
}

join() { # RANK RANKS [ATOMS RATIO]
  r=$1 n=$2; shift 2
  timeout 60 "$program" "$r" "$n" 127.0.0.1 "$port" "$@" >"$room/$r" 2>&1
}

for atoms in "entry 16" "svd 8"; do
  # shellcheck disable=SC2086
  serve 3 $atoms
  # shellcheck disable=SC2086
  join 1 3 $atoms & second=$!
  # shellcheck disable=SC2086
  join 2 3 $atoms
  check "$atoms: rank 2 ends well" [ $? = 0 ]
  wait "$second"
  check "$atoms: rank 1 ends well" [ $? = 0 ]
  wait "$first"
  check "$atoms: rank 0 ends well" [ $? = 0 ]
  check "$atoms: each rank reports" [ "$(grep -h -c '^rank . of 3: loss' "$room"/? | tr -d '\n')" = 111 ]
  check "$atoms: all end with the same weights" [ "$(sed -n 's/.*; weights //p' "$room"/? | sort -u | wc -l)" = 1 ]
  check "$atoms: the loss falls below a thousandth" [ "$(sed -n 's/.*: loss \([0-9.]*\), then \([0-9.]*\);.*/\1 \2/p' "$room"/? |
    awk '$2 < $1 / 1000 { n++ } END { print n + 0 }')" = 3 ]
  check "$atoms: messages keep the ratio" [ "$(sed -n 's/.*; \([0-9]*\) bytes a message in place of \([0-9]*\);.*/\1 \2/p' "$room"/? |
    awk -v ratio="${atoms#* }" '$1 < 1.1 * $2 / ratio && $1 > 0.8 * $2 / ratio { n++ } END { print n + 0 }')" = 3 ]
done

serve 2
join 7 2 || true # not a rank: it is refused before it connects
check "a rank beyond the number of ranks is refused" grep -q '^usage: tcp_average RANK RANKS' "$room/7"
join 2 3 || true # a process of another job
wait "$first"
check "and by rank 0, from a process of another job" grep -q 'rank 0: a process says that it is rank 2' "$room/0"
timeout 60 "$program" 0 1 127.0.0.1 0 no-such-atoms >"$room/0" 2>&1
check "unknown atoms are named" grep -q "there is none called 'no-such-atoms'" "$room/0"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
