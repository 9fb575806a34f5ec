#!/bin/sh
# test.sh - builds and runs all tests, and ends with the line "N passed, N failed" (exit code 1 if any failed). Installs
# the packages that it needs by apt, if available. A suite that crashes, that prints nothing for some minutes, or that
# ends without its closing line counts as one failure. Logs: build/test-logs/.
set -eu

all_steps="lint build unit specs mpi install packages slurm python gemm codec sanitize-build sanitize-unit sanitize-specs sanitize-mpi tsan fuzz"
fast_steps="lint build unit specs mpi install"

usage() {
  cat <<USAGE
usage: sh scripts/test.sh [--fast] [--only STEP]... [--verbose] [--help]
  --fast        only: $fast_steps
  --only STEP   only this step (may be repeated), after the build that it needs
  --verbose     show the whole output of every suite, not only of those that fail
steps: $all_steps
environment: FUZZ_SECONDS (20) seconds for each fuzz target, TIME_SCALE (1) factor on the seconds after which a silent suite is stopped
USAGE
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

steps=$all_steps only='' verbose=''
while [ $# -gt 0 ]; do
  case $1 in
  --fast) steps=$fast_steps ;;
  --only)
    [ $# -ge 2 ] || die "--only needs the name of a step"
    case " $all_steps " in *" $2 "*) only="$only $2" ;; *) die "no step '$2'; steps: $all_steps" ;; esac
    shift ;;
  --verbose) verbose=1 ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; die "unknown option '$1'" ;;
  esac
  shift
done
steps=${only:-$steps}
fuzz_seconds=${FUZZ_SECONDS:-20}
time_scale=${TIME_SCALE:-1}
case $fuzz_seconds in '' | *[!0-9]*) die "FUZZ_SECONDS is '$fuzz_seconds', expected whole seconds" ;; esac
case $time_scale in '' | 0* | *[!0-9]*) die "TIME_SCALE is '$time_scale', expected a whole number above 0" ;; esac

logs=$root/build/test-logs
passed=0 failed=0 skipped=0 summary=''
step_passed=0 step_failed=0 step_skipped=0

# ---- running and counting -------------------------------------------------------------------------------------------
# Adds up the closing lines of a log: "N passed, N failed[, N skipped]" or busted's "N successes / N failures / ...".
count_log() {
  sed 's/\r$//; s/\x1b\[[0-9;]*m//g' "$1" | awk '
    /^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; if ($6 ~ /^skipped/) s += $5; seen = 1 }
    /^[0-9]+ success(es)? \/ [0-9]+ failures? \/ [0-9]+ errors?/ { p += $1; f += $4 + $7; s += $10; seen = 1 }
    END { print p + 0, f + 0, s + 0, seen + 0 }'
}

# suite LABEL SECONDS COMMAND...: runs one program of many tests. It must print something, such as a dot per test, at
# least every SECONDS, and a closing line. A limit for the whole program would be too short on a busy machine.
suite() { run_suite counted "$@"; }
# check LABEL SECONDS COMMAND...: runs a command as one test, whose result is its exit status.
check() { run_suite single "$@"; }

# Ends a running command if its log has not grown for SECONDS.
end_if_silent() { # PID LOG SECONDS
  size='' grown=$(now)
  while sleep 2 && kill -0 "$1" 2>/dev/null; do
    new=$(wc -c <"$2")
    if [ "$new" != "$size" ]; then
      size=$new grown=$(now)
    elif [ "$(($(now) - grown))" -ge "$3" ]; then
      printf '\n%s\n' "stopped: nothing was printed for $3 s" >>"$2"
      kill "$1"
      return
    fi
  done
}

run_suite() {
  kind=$1 label=$2 limit=$(($3 * time_scale)); shift 3
  log=$logs/$(printf '%s' "$label" | tr -c 'A-Za-z0-9_.\n-' _).log
  began=$(now) rc=0
  (cd "$root" && exec timeout -k 10 1d "$@") >"$log" 2>&1 </dev/null & running=$! # timeout: so that a kill ends its group
  end_if_silent "$running" "$log" "$limit" >/dev/null 2>&1 & watcher=$!
  wait "$running" || rc=$?
  kill "$watcher" 2>/dev/null || true
  running=
  # shellcheck disable=SC2046
  set -- $(count_log "$log")
  p=$1 f=$2 s=$3 seen=$4 why=
  if [ "$kind" = single ]; then
    p=0 f=0 s=0 seen=1
    [ "$rc" != 0 ] || p=1
  fi
  if [ "$rc" = 124 ] || [ "$rc" = 137 ] || grep -q '^stopped: nothing was printed' "$log"; then
    f=$((f + 1)) why=" (silent for $limit s, or killed)"
  elif [ "$rc" != 0 ] && [ "$f" = 0 ]; then f=1 why=" (exit code $rc)"
  elif [ "$rc" = 0 ] && [ "$seen" = 0 ]; then f=1 why=" (no closing line)"
  fi
  step_passed=$((step_passed + p)) step_failed=$((step_failed + f)) step_skipped=$((step_skipped + s))
  printf '  %-34s %5d passed %3d failed %s%4d s%s\n' "$label" "$p" "$f" "$([ "$s" = 0 ] || printf '%d skipped ' "$s")" \
    "$(($(now) - began))" "$why"
  if [ "$f" != 0 ]; then
    { printf '  %s: %d failed%s\n' "$label" "$f" "$why"; excerpt "$log"; } >>"$failures"
    [ -n "$verbose" ] || excerpt "$log"
  fi
  [ -z "$verbose" ] || cat "$log"
}

# The end of a log, where busted and the C tests say what failed.
excerpt() { tail -n 40 "$1" | tr -c '[:print:]\n\t' '?' | cut -c1-200 | sed 's/^/    | /'; }

# pool SUITE NAME...: runs `SUITE NAME` for every name, in this order, one per core at a time. If a worker ends without a
# result, its name counts as one failure.
pool() {
  taken=$logs/pool.$$
  pool_suite=$1; shift
  rm -rf "$taken"
  mkdir -p "$taken"
  printf '%s\n' "$@" >"$taken/names"
  workers='' number=0
  while [ "$number" -lt "$(cores)" ]; do
    number=$((number + 1))
    worker & workers="$workers $!"
  done
  for w in $workers; do wait "$w" || true; done
  workers=''
  while read -r name; do
    if read -r p f s 2>/dev/null <"$taken/$(place_of "$name")/counts"; then
      step_passed=$((step_passed + p)) step_failed=$((step_failed + f)) step_skipped=$((step_skipped + s))
    else
      step_failed=$((step_failed + 1))
      printf '  %-34s was not finished\n' "$name" | tee -a "$failures"
    fi
  done <"$taken/names"
  rm -rf "$taken"
}

# Prints the folder of a name in $taken: a name may have slashes.
place_of() { printf '%s' "$1" | tr / .; }

# One process of the pool: runs names that no other process has taken. The lines of one name are printed together.
worker() {
  trap 'stop_suite; exit 143' TERM
  while read -r name; do
    place=$taken/$(place_of "$name")
    mkdir "$place" 2>/dev/null || continue
    step_passed=0 step_failed=0 step_skipped=0
    "$pool_suite" "$name" >"$place/lines" 2>&1
    cat "$place/lines"
    echo "$step_passed $step_failed $step_skipped" >"$place/counts"
  done <"$taken/names"
}

running='' workers=''
stop_suite() { [ -z "$running" ] || kill "$running" 2>/dev/null || true; }

# Ends the running processes, then this script: background processes do not get the interrupt key's signal.
stop() { # EXIT CODE
  stop_suite
  for w in $workers; do kill "$w" 2>/dev/null || true; done
  exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

# skip LABEL WHY: reports that something could not be tested here.
skip() {
  step_skipped=$((step_skipped + 1))
  printf '  %-34s skipped: %s\n' "$1" "$2"
}

run_step() {
  say "$1"
  step_passed=0 step_failed=0 step_skipped=0 began_step=$(now)
  case $1 in
  lint) step_lint ;;
  build) step_build ;;
  unit) step_unit build ;;
  specs) step_specs build ;;
  mpi) step_mpi build ;;
  install) check_built release build && suite install 120 sh tests/install.sh "$root/build" ;;
  packages) step_packages ;;
  slurm) check_built release build && suite slurm 900 sh tests/slurm.sh "$root/build" ;;
  python) step_python ;;
  gemm) step_gemm ;;
  codec) step_codec ;;
  sanitize-build) check_built sanitize build/sanitize ;;
  sanitize-unit) check_built sanitize build/sanitize && step_unit build/sanitize ;;
  sanitize-specs) check_built sanitize build/sanitize && step_specs build/sanitize ;;
  sanitize-mpi) check_built sanitize build/sanitize && step_mpi build/sanitize ;;
  tsan) step_tsan ;;
  fuzz) step_fuzz ;;
  esac || true
  passed=$((passed + step_passed)) failed=$((failed + step_failed)) skipped=$((skipped + step_skipped))
  summary="$summary$(printf '%-16s %6d passed %4d failed %4d skipped %5d s' "$1" "$step_passed" "$step_failed" "$step_skipped" \
    "$(($(now) - began_step))")
"
}

# ---- steps ----------------------------------------------------------------------------------------------------------
# Configures and builds once. Counts as a test only if it fails (in the step `build` always).
check_built() {
  case " $built " in *" $2 "*) return 0 ;; *" !$2 "*) return 1 ;; esac
  if build_preset "$1" "$2" all -DATOMO_WERROR=ON; then built="$built $2"; else
    built="$built !$2" step_failed=$((step_failed + 1))
    printf '  %s was not built\n' "$2" >>"$failures"
    return 1
  fi
}
built=

step_build() {
  if check_built release build; then step_passed=1; fi
}

step_lint() {
  if have luacheck; then check luacheck 120 luacheck -q --no-color .; else skip luacheck "not installed"; fi
  # Other major versions of clang-format format some lines differently.
  case $(clang-format --version 2>/dev/null) in
  *"version 14."*) check clang-format 120 sh -c 'find runtime scripts tests examples -name "*.[ch]" -exec clang-format --dry-run -Werror {} +' ;;
  *) skip clang-format "clang-format 14 is not installed" ;;
  esac
  lua=luajit
  have luajit || lua=$root/build/atomo-lua
  if have "$lua"; then check "layers, references, help texts" 120 "$lua" scripts/check_house.lua
  else skip check-house "there is no luajit, and build/atomo-lua is not built"; fi
  for script in scripts/*.sh tests/*.sh .ci/run; do
    [ -f "$root/$script" ] || continue
    case $(head -n 1 "$root/$script") in *bash*) check "syntax of $script" 10 bash -n "$script" ;; *) check "syntax of $script" 10 sh -n "$script" ;; esac
  done
}

# The C tests. With sanitizers, leaks are failures, too, if LeakSanitizer can run here (it needs ptrace).
step_unit() {
  check_built release build || return 0
  for program in "$root/$1"/tests/test_*; do
    if [ ! -x "$program" ] || [ -d "$program" ]; then continue; fi
    suite "$1 ${program##*/}" 120 env ASAN_OPTIONS="detect_leaks=$leaks:allocator_may_return_null=1" LSAN_OPTIONS="suppressions=$root/tests/lsan.supp:print_suppressions=0" \
      UBSAN_OPTIONS=print_stacktrace=1 "$program"
  done
  check "$1 example of atomo_codec.h" 120 env LSAN_OPTIONS="suppressions=$root/tests/lsan.supp" "$root/$1/tests/example_codec"
  suite "$1 example of TCP" 120 env ASAN_OPTIONS=detect_leaks=0 sh tests/tcp_average.sh "$root/$1"
  [ "$1" != build ] || suite "$1 symbols of libatomo-codec" 120 sh tests/symbols.sh "$root/$1"
  check "$1 example of atomo.h" 120 env ASAN_OPTIONS=detect_leaks=0 sh scripts/mpirun.sh -n 2 "$root/$1/tests/example"
}

# Every spec file in a separate process. Those marked "-- test: slow" run first, so that none is alone at the end.
step_specs() {
  check_built release build || return 0
  if ! has_specs tests/spec; then skip "$1 specs" "there are none"; return 0; fi
  # shellcheck disable=SC2046
  spec_pool "$1" $(spec_files "*/*")
}

# spec_pool BUILD FILE...: files share the cores, so waiting threads must not spin, and each file gets two threads.
spec_pool() {
  tree=$1; shift
  export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2
  pool spec_suite "$@"
  unset OMP_WAIT_POLICY OMP_NUM_THREADS
}

FAST_CPU=8 # limit of CPU seconds for a file without "-- test: slow"

spec_suite() { # FILE
  cpu_seconds; before=$cpu
  suite "$tree ${1%_spec.lua}" 900 env ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 "$root/$tree/atomo-lua" test "tests/spec/$1"
  cpu_seconds; taken_cpu=$((cpu - before))
  if [ "$tree" = build ] && [ "$taken_cpu" -ge "$FAST_CPU" ] && ! grep -q '^-- test: slow$' "$root/tests/spec/$1"; then
    printf '  %-34s took %d s of CPU time: make it faster, or write the line "-- test: slow" into it\n' "$1" "$taken_cpu"
  fi
}

# Sets cpu: whole CPU seconds of this worker's ended programs. (In $(...) they would be those of a subshell.)
cpu_seconds() {
  times >"$taken/times.$number"
  cpu=$(awk -F '[ms ]+' 'NR == 2 { printf "%d\n", $1 * 60 + $2 + $3 * 60 + $4 }' "$taken/times.$number")
}

# Prints the spec files whose paths below tests/spec match, slow ones first.
spec_files() { # PATTERN
  (cd "$root/tests/spec" && {
    grep -l '^-- test: slow$' $1_spec.lua || true
    grep -L '^-- test: slow$' $1_spec.lua || true
  })
}

step_mpi() {
  check_built release build || return 0
  if ! has_specs tests/mpi; then skip "$1 mpi specs" "there are none"; return 0; fi
  for ranks in 1 2 3 4; do # ranks share cores, so waiting threads must not spin
    suite "$1 mpi specs, $ranks ranks" 900 env OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 OMPI_MCA_hwloc_base_binding_policy=none \
      sh scripts/mpirun.sh -n "$ranks" "$root/$1/atomo-lua" test tests/mpi
  done
  # Every topology with every compressor on more ranks than there are tensors, not a power of two.
  suite "$1 mpi exchange, 7 ranks" 300 env OMP_WAIT_POLICY=passive ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 OMPI_MCA_hwloc_base_binding_policy=none \
    sh scripts/mpirun.sh -n 7 "$root/$1/atomo-lua" test tests/mpi/exchange/exchange_matrix_spec.lua
}

# Debian packages: what is in them, and training from them.
step_packages() {
  for tool in cpack dpkg-deb dpkg-shlibdeps file; do
    have "$tool" || { skip packages "$tool is not installed (Debian: cmake dpkg-dev file)"; return 0; }
  done
  check_built release build || return 0
  if build_preset package build/packages all -DATOMO_OBJECTS="$root/build"; then
    suite "build/packages" 300 sh tests/packages.sh "$root/build/packages"
  else step_failed=1; fi
}

# The Python package, by the first python3 that has NumPy. Tests of the hook need PyTorch, and say so if they are skipped.
step_python() {
  check_built release build || return 0
  for python in python3 /usr/bin/python3 ''; do
    [ -z "$python" ] || ! "$python" -c 'import numpy' 2>/dev/null || break
  done
  if [ -z "$python" ]; then skip python "there is no python3 with NumPy (Debian: python3-numpy, and python3-torch for the hook)"; return 0; fi
  names=
  for file in "$root"/bindings/python/tests/test_*.py; do names="$names $(basename "$file" .py)"; done
  # shellcheck disable=SC2086
  pool python_suite $names
}

python_suite() { # NAME
  suite "python $1" 180 env ATOMO_LIBRARY="$root/build" "$python" "$root/bindings/python/tests/run.py" "$1"
}

# The build without oneDNN: layers and models with the other convolution engine.
step_gemm() {
  check_built gemm build/gemm || return 0
  if ! has_specs tests/spec; then skip "build/gemm specs" "there are none"; return 0; fi
  # shellcheck disable=SC2046
  spec_pool build/gemm $(spec_files "nn/*")
}

# libatomo-codec alone, without FFTW: it is built without MPI and LuaJIT.
step_codec() {
  check_built codec build/codec || return 0
  check "build/codec example of atomo_codec.h" 120 build/codec/tests/example_codec
  suite "build/codec example of TCP" 120 sh tests/tcp_average.sh "$root/build/codec"
  suite "build/codec symbols" 120 sh tests/symbols.sh "$root/build/codec"
}

# The threads of exchange, watchdog and loader, and codecs in threads, with ThreadSanitizer; one OpenMP thread, as OpenBLAS is not instrumented.
step_tsan() {
  check_built tsan build/tsan || return 0
  pool tsan_suite engine left_alone watchdog leave test_loader test_flight test_memory test_codec_threads
}

tsan_suite() { # NAME
  case $1 in
  test_*) set -- "$1" "$root/build/tsan/tests/$1" ;;
  engine) set -- "engine, 2 ranks" env OMPI_MCA_hwloc_base_binding_policy=none sh scripts/mpirun.sh -n 2 \
    "$root/build/tsan/atomo-lua" test tests/mpi/exchange/exchange_engine_spec.lua ;;
  *) set -- "$1" "$root/build/tsan/atomo-lua" test "tests/spec/comm/${1}_spec.lua" ;;
  esac
  label="build/tsan $1"; shift
  suite "$label" 900 env TSAN_OPTIONS="suppressions=$root/tests/tsan.supp" OMP_NUM_THREADS=1 "$@"
}

step_fuzz() {
  if ! have clang; then skip fuzz "clang is not installed"; return 0; fi
  if ! build_preset fuzz build/fuzz fuzz; then step_failed=1; return 0; fi
  names=
  for program in "$root"/build/fuzz/tests/fuzz_*; do
    if [ -x "$program" ] && [ ! -d "$program" ]; then names="$names ${program##*/}"; fi
  done
  # shellcheck disable=SC2086
  pool fuzz_suite $names
}

fuzz_suite() { # NAME
  kept=$root/tests/fuzz/corpus/${1#fuzz_} new=$root/build/fuzz/corpus/$1
  mkdir -p "$new"
  [ -d "$kept" ] || kept=
  check "$1, $fuzz_seconds s" $((fuzz_seconds + 120)) env ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 "$root/build/fuzz/tests/$1" -max_total_time="$fuzz_seconds" \
    -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$logs/$1-" "$new" ${kept:+"$kept"}
  sed -n 's/^stat::number_of_executed_units: */    executions: /p' "$log"
}

has_specs() {
  for spec in "$root/$1"/*/*_spec.lua; do [ -f "$spec" ] && return 0; done
  return 1
}

# LeakSanitizer cannot run if ptrace is forbidden (some containers); leaks are then found by the release tests' counters.
probe_leak_sanitizer() {
  leaks=0
  printf 'int main(void) { return 0; }\n' >"$logs/leak.c"
  if cc -fsanitize=address -o "$logs/leak" "$logs/leak.c" 2>/dev/null && ASAN_OPTIONS=detect_leaks=1 "$logs/leak" 2>/dev/null; then leaks=1; fi
}

# ---- main -----------------------------------------------------------------------------------------------------------
begin=$(now)
ensure_packages "build test" "extra testextra"
mkdir -p "$logs"
failures=$logs/failures.$$ # what failed is said once more at the end, since a long log is often read from its end
: >"$failures"
mpi_settings 4
probe_leak_sanitizer
for step in $steps; do run_step "$step"; done
say "summary ($(($(now) - begin)) s)"
printf '%s' "$summary"
if [ -s "$failures" ]; then
  say "failures"
  head -n 200 "$failures"
fi
rm -f "$failures"
closing="$passed passed, $failed failed"
[ "$skipped" = 0 ] || closing="$closing, $skipped skipped"
echo "$closing"
[ "$failed" = 0 ]
