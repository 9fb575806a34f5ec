#!/bin/sh
# packages.sh - checks the Debian packages of a build: makes them by cpack, reads their control files and lists, unpacks
# them into a folder by dpkg -x, and trains, encodes and compiles from there. Usage: tests/packages.sh BUILD_DIR
set -u
build=$(cd "${1:?usage: packages.sh BUILD_DIR}" && pwd) || exit 2
tree=$(cd "$(dirname "$0")/.." && pwd) || exit 2
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
. "$tree/tests/support/expect.sh"

version=$(sed -n 's/^project(atomo VERSION \([0-9.]*\).*/\1/p' "$tree/CMakeLists.txt")
arch=$(dpkg --print-architecture)
export DEBFULLNAME="the atomo-lua maintainers" DEBEMAIL=maintainers@localhost SOURCE_DATE_EPOCH=1795737600
rm -f "$build"/*.deb
expect "cpack -G DEB" "" sh -c 'cd "$1" && cmake . && cpack -G DEB' _ "$build"
deb() { echo "$build/$1_${version}_$([ "$1" = python3-atomo ] && echo all || echo "$arch").deb"; }

field() { dpkg-deb -f "$(deb "$1")" "$2"; }         # PACKAGE FIELD
has() { expect "$1 has $2" "" sh -c 'dpkg-deb -c "$1" | grep -q -E "$2( -> .*)?$"' _ "$(deb "$1")" "$2"; } # PACKAGE REGEX
has libatomo-codec0 "/usr/lib/[^/]*linux[^/]*/libatomo-codec\.so\.0"
has libatomo0 "/usr/lib/[^/]*linux[^/]*/libatomo\.so\.0"
has atomo-lua /usr/bin/atomo-lua
has atomo-lua /usr/share/atomo/scripts/train_cifar.lua
has atomo-lua /usr/share/lua/5.1/atomo/init.lua
has atomo-lua /usr/share/lua/5.1/models/resnet.lua
has atomo-lua /usr/share/doc/atomo-lua/docs/guide.md
has libatomo-dev "/usr/lib/[^/]*/pkgconfig/atomo-codec.pc"
has libatomo-dev "/usr/lib/[^/]*/libatomo\.so"
has python3-atomo /usr/lib/python3/dist-packages/atomo/torch/__init__.py
expect "no folder but Debian's" "0" sh -c 'for d in "$1"/*.deb; do dpkg-deb -c "$d"; done | grep -c -v -E " \./(usr/((bin|include|lib|share)/.*)?)?$"; true' _ "$build"
for package in libatomo-codec0 libatomo0 atomo-lua libatomo-dev python3-atomo; do
  has $package "/usr/share/doc/$package/copyright"
  expect "the version of $package" "$version" field $package Version
done
expect "libatomo-codec0 depends on zlib" "zlib1g" field libatomo-codec0 Depends
expect "libatomo-codec0 depends on neither MPI nor LuaJIT" "0" sh -c 'dpkg-deb -f "$1" Depends | grep -c -E "mpi|luajit"; true' _ "$(deb libatomo-codec0)"
expect "libatomo0 depends on MPI" "libopenmpi" field libatomo0 Depends
expect "atomo-lua depends on LuaJIT" "libluajit-5.1-2" field atomo-lua Depends
expect "atomo-lua depends on its library" "libatomo0 (= $version)" field atomo-lua Depends
expect "libatomo0 has the loader's cache renewed" "ldconfig" dpkg-deb -I "$(deb libatomo0)" triggers

if command -v lintian >/dev/null 2>&1; then # localhost: DEBEMAIL names who publishes packages; cpack itself writes the call of ldconfig
  kept=bogus-mail-host,bogus-mail-host-in-debian-changelog,maintscript-calls-ldconfig,no-manual-page
  expect "lintian finds no fault" "" lintian --fail-on error,warning --suppress-tags "$kept" "$build"/*.deb
fi

for package in "$build"/*.deb; do dpkg -x "$package" "$room/root"; done
usr=$room/root/usr
LD_LIBRARY_PATH=$(dirname "$(find "$usr/lib" -name 'libatomo.so.0')")
export LD_LIBRARY_PATH OMP_NUM_THREADS=1
cd "$room" || exit 1
expect "it trains on two ranks" "final test accuracy" sh "$usr/share/atomo/scripts/mpirun.sh" -n 2 "$usr/bin/atomo-lua" \
  "$usr/share/atomo/scripts/train_cifar.lua" --model lenet --max-steps 4 --batch 16
expect "its library is the package's" "$usr/lib" sh -c 'ldd "$1" | grep libatomo' _ "$usr/bin/atomo-lua"
expect "no library has a search path of the build" "0" sh -c 'find "$1" -name "*.so*" -type f -exec readelf -d {} + | grep -c -E "R(UN)?PATH.*$2"; true' _ "$usr/lib" "$build"
if command -v luajit >/dev/null 2>&1; then
  expect "a stock luajit uses it" "54" env LUA_PATH="$usr/share/lua/5.1/?.lua;$usr/share/lua/5.1/?/init.lua;;" \
    luajit -e 'local t = require("atomo").tensor {{1, 2}, {3, 4}}; print(t:matmul(t):sum():item())'
fi
for python in python3 /usr/bin/python3; do "$python" -c 'import numpy' 2>/dev/null && break; python=''; done
if [ -n "$python" ]; then
  expect "the Python package encodes" "$version 1024" env PYTHONPATH="$usr/lib/python3/dist-packages" "$python" -c '
import atomo, numpy
c = atomo.Compressor("taps:ratio=4")
print(atomo.__version__, c.decode(c.encode(numpy.ones((32, 32), numpy.float32))).size)'
fi
expect "a C program is built" "" sh -c 'cmake -DIN="$1/include/atomo_codec.h" -DOUT=codec.c -P "$2/cmake/example.cmake" && cc codec.c -o codec -I"$1/include" -L"$3" -latomo-codec' _ \
  "$usr" "$tree" "$LD_LIBRARY_PATH"
expect "and runs" "in place of 32768, mean 0.5" ./codec

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
