#!/bin/sh
# coverage.sh - builds the preset coverage, runs tests with it, and prints the fraction of lines of runtime/ that ran.
set -eu

usage() {
  cat <<USAGE
usage: sh scripts/coverage.sh [ctest's arguments]
  sh scripts/coverage.sh                  runs the tests labelled fast
  sh scripts/coverage.sh -L 'unit|spec'   runs the tests with these labels
Prints one line per file, lowest share first, and a last line for all files. Earlier runs are counted, too, until
build/coverage is removed. To list the lines of a file that did not run:
  gcov -t -o build/coverage/CMakeFiles/atomo_objects.dir/runtime/core/memory.c.gcda runtime/core/memory.c | grep '#####:'
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"
case ${1:-} in -h | --help) usage; exit 0 ;; esac
[ $# -gt 0 ] || set -- -L fast
have gcov || die "gcov is missing (it comes with gcc)"
mpi_settings 4
build_preset coverage build/coverage all
say "running tests"
rc=0
(cd "$root" && ctest --test-dir build/coverage -j "$(cores)" --output-on-failure "$@") || rc=$?
say "lines that ran"
cd "$root/build/coverage"
find CMakeFiles/atomo_objects.dir/runtime -name '*.gcda' -exec gcov -n {} + 2>/dev/null | awk '
  /^File / { at = index($0, "/runtime/"); name = at ? substr($0, at + 1, length($0) - at - 1) : "" }
  /^Lines executed:/ && name != "" {
    split($2, part, "[:%]")
    if (seen[name]++) next # a header that was counted with another file
    lines += $4; ran += part[2] * $4 / 100
    printf "%6.2f %% of %5d  %s\n", part[2], $4, name | "sort -n"
  }
  END { close("sort -n"); if (!lines) exit 1; printf "%6.2f %% of %5d  all\n", 100 * ran / lines, lines }'
exit "$rc"
