#!/bin/sh
# install.sh BUILD_DIR - installs a build into a folder, moves that folder (an installation is relocatable), and uses it
# from another one: the host program, a stock luajit, a C program by pkg-config. Then it installs again and uninstalls.
# All folders are temporary. Prints "N passed, N failed".
set -u
build=$(cd "${1:?usage: install.sh BUILD_DIR}" && pwd) || exit 2
cmake_folder=$(cd "$(dirname "$0")/../cmake" && pwd) || exit 2
room=$(mktemp -d)
manifest=$build/install_manifest.txt # for `uninstall` of the user's own installation: restored at the end
[ ! -f "$manifest" ] || cp "$manifest" "$room/manifest"
end() {
  rm -f "$manifest"
  [ ! -f "$room/manifest" ] || cp "$room/manifest" "$manifest"
  rm -rf "$room"
}
trap end EXIT
prefix=$room/moved
. "$cmake_folder/../tests/support/expect.sh"

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
expect "cmake --install" "" cmake --install "$build" --prefix "$room/first"
mv "$room/first" "$prefix"
cd "$room" || exit 1

cat >hello.lua <<'LUA'
local atomo = require "atomo"
local t = atomo.tensor {{1, 2}, {3, 4}}
local net = require("models.lenet").lenet and "models" or "no models"
print("sum " .. (t:matmul(t)):sum():item() .. " " .. net .. " " .. (arg[1] or ""))
LUA
expect "the host program runs a script" "sum 54 models word" "$prefix/bin/atomo-lua" hello.lua word
(cd / && exec "$prefix/bin/atomo-lua" "$room/hello.lua") >"$room/root-out" 2>&1
expect "from the folder /" "sum 54" cat "$room/root-out"
mkdir -p "$room/bin" && ln -s "$prefix/bin/atomo-lua" "$room/bin/atomo-lua"
expect "through a symbolic link on PATH" "sum 54" env PATH="$room/bin:$PATH" atomo-lua hello.lua
expect "the manual page" "runs Lua scripts" gzip -dc "$prefix/share/man/man1/atomo-lua.1.gz"
expect "the manual page of the C functions" "int atomo_codec_encode(" gzip -dc "$prefix/share/man/man3/atomo_codec.3.gz"
expect "the reference" "F.conv2d(x, w, b, opts)" cat "$prefix/share/doc/atomo-lua/reference/functional.md"
expect "its help has the paths of this command line" "mpirun -n 2 $prefix/bin/atomo-lua $prefix/share/atomo/scripts/train_cifar.lua" \
  "$prefix/bin/atomo-lua" "$prefix/share/atomo/scripts/train_cifar.lua" --help
expect "so has that of mpirun.sh" "sh $prefix/share/atomo/scripts/mpirun.sh -n 2 atomo-lua $prefix/share/atomo/scripts/train_cifar.lua" \
  sh "$prefix/share/atomo/scripts/mpirun.sh" --help
mkdir -p "$room/few" && for program in sh dirname; do ln -s "$(command -v $program)" "$room/few/"; done
expect "without mpirun, it names the package" "apt-get install openmpi-bin" sh -c '! PATH=$1 sh "$2" -n 2 true 2>&1' _ \
  "$room/few" "$prefix/share/atomo/scripts/mpirun.sh"
expect "an installed script" "--compress" "$prefix/bin/atomo-lua" "$prefix/share/atomo/scripts/train_cifar.lua" --help

if command -v luajit >/dev/null 2>&1; then # LUA_PATH: where the prefix is not /usr or /usr/local
  expect "a stock luajit" "sum 54 models" env LUA_PATH="$prefix/share/lua/5.1/?.lua;$prefix/share/lua/5.1/?/init.lua;;" luajit hello.lua
fi

cat >use.c <<'C'
#include <atomo.h>
#include <stdio.h>
int main(void)
{
    printf("libatomo %s, ABI %s\n", atomo_version(), atomo_abi() == ATOMO_ABI ? "fits" : "differs");
    return 0;
}
C
pc=$(find "$prefix" -name atomo.pc)
export PKG_CONFIG_PATH="${pc%/*}"
expect "the library that bench_nn.lua --limit loads" "libatomo_bench.so" find "$prefix" -path '*/atomo/libatomo_bench.so'
expect "pkg-config knows it" "" pkg-config --exists atomo
# shellcheck disable=SC2046
expect "a C program is built" "" cc use.c -o use $(pkg-config --cflags --libs atomo) "-Wl,-rpath,$(pkg-config --variable=libdir atomo)"
expect "and runs" "ABI fits" ./use
cmake -DIN="$prefix/include/atomo.h" -DOUT=example.c -P "$cmake_folder/example.cmake"
# shellcheck disable=SC2046
expect "the example of the header is built" "" cc example.c -o example $(pkg-config --cflags --libs atomo) "-Wl,-rpath,$(pkg-config --variable=libdir atomo)"
expect "and runs" "in place of 32768" ./example

expect "pkg-config knows the codec library" "" pkg-config --exists atomo-codec
cmake -DIN="$prefix/include/atomo_codec.h" -DOUT=codec.c -P "$cmake_folder/example.cmake"
# shellcheck disable=SC2046
expect "the example of the codec's header is built" "" cc -Wl,--as-needed codec.c -o codec $(pkg-config --cflags --libs atomo-codec) \
  "-Wl,-rpath,$(pkg-config --variable=libdir atomo-codec)"
expect "and runs" "in place of 32768, mean 0.5" ./codec
expect "with the soname of its library" "libatomo-codec.so.0" readelf -d ./codec
expect "without MPI, LuaJIT, BLAS and FFTW" "" sh -c "! ldd ./codec | grep -E 'libmpi|libluajit|openblas|lapack|fftw'"

version=$("$prefix/bin/atomo-lua" --version | sed -n '1s/^atomo-lua //p')
expect "pkg-config states the version of the host" "$version" pkg-config --modversion atomo
expect "and so does the library" "libatomo $version," ./use
expect "and of the codec library" "$version" pkg-config --modversion atomo-codec

expect "install again" "" cmake --install "$build" --prefix "$room/second"
: >"$room/second/share/atomo/kept"
expect "uninstall" "removed" cmake --build "$build" --target uninstall
expect "uninstall leaves what it did not install, and nothing else" "$room/second/share/atomo/kept" find "$room/second" -type f -o -type l
expect "only that" "1" sh -c "find '$room/second' -type f -o -type l | wc -l"
expect "no folder of modules is left" "0" sh -c "find '$room/second' -name models -o -path '*lua/5.1/atomo' | wc -l"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
