# expect.sh - counts checks for scripts of tests/. A script that sources it must first set `room`, a folder of its own.
# shellcheck shell=sh
passed=0 failed=0

# expect NAME TEXT COMMAND...: the command must exit with 0 and its output must contain the text.
expect() {
  name=$1 text=$2; shift 2
  if "$@" >"$room/out" 2>&1 </dev/null && { [ -z "$text" ] || grep -q -F -e "$text" "$room/out"; }; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "failed: $name: expected exit code 0 and \"$text\", got:"
    sed 's/^/    /' "$room/out"
  fi
}
