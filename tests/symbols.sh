#!/bin/sh
# symbols.sh BUILD_DIR - libatomo-codec.so exports the symbols of cmake/atomo-codec.map and no others, each with the
# version ATOMO_CODEC_0; atomo_codec.h declares the same ones; and the library needs no library but those named below.
# Prints "N passed, N failed".
set -u
build=$(cd "${1:?usage: symbols.sh BUILD_DIR}" && pwd) || exit 2
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
library=$build/libatomo-codec.so.0
allowed="libc libm libgomp libz libpthread libdl ld-linux" # zlib: the checksum of a message
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
export LC_ALL=C
passed=0 failed=0

# same WHAT LIST: the sorted lines of a file are those of the map.
same() {
  if [ -s "$2" ] && diff "$room/map" "$2" >"$room/diff"; then passed=$((passed + 1)); return; fi
  failed=$((failed + 1))
  echo "failed: $1 differs from cmake/atomo-codec.map (<: only in the map, >: not in the map):"
  sed -n 's/^[<>]/    &/p' "$room/diff"
}

sed -n 's/^ *\(atomo_[a-z0-9_]*\);$/\1/p' "$root/cmake/atomo-codec.map" | sort >"$room/map"
# In the preprocessed header a declared function is a name before a parenthesis.
"${CC:-cc}" -E -P -DATOMO_CDEF "$root/runtime/atomo_codec.h" | tr '\n' ' ' | grep -o 'atomo_[a-z0-9_]* *(' | tr -d ' (' |
  sort -u >"$room/header"
nm -D --defined-only --with-symbol-versions "$library" | sed -n 's/.* T \(.*\)@@ATOMO_CODEC_0$/\1/p' | sort >"$room/exported"
nm -D --defined-only "$library" | awk '{ print $3 }' | sed 's/@.*//' | grep -v '^ATOMO_CODEC_0$' | sort >"$room/all"
same "atomo_codec.h" "$room/header"
same "what libatomo-codec exports with version ATOMO_CODEC_0" "$room/exported"
same "what libatomo-codec exports" "$room/all"

for needed in $(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p'); do
  name=${needed%%.so*}
  case " $allowed " in
  *" ${name%-x86-64*} "*) passed=$((passed + 1)) ;;
  *) failed=$((failed + 1)); echo "failed: libatomo-codec needs $needed, expected only: $allowed" ;;
  esac
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
