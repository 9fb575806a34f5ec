# lib.sh - shared by quickstart.sh, test.sh and mpirun.sh: messages, packages, building, MPI settings. POSIX sh.
# A script that sources it must first set `root` (the repository's folder) and `set -eu`.

say() { printf '== %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
now() { date +%s; }

# The number of cores that this process may use.
cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1; }

# Reads a text of --help; prints it with the folder of the scripts as it was typed, so that its commands run in the
# present folder. An installation has its programs on PATH, not in build/.
as_typed() {
  folder=''
  case $0 in */*) folder=$(printf '%s' "${0%/*}/" | sed 's/[&|\\]/\\&/g') ;; esac
  case $folder in *scripts/) program=${folder%scripts/}build/atomo-lua ;; *) program=${folder}../build/atomo-lua ;; esac
  [ -f "$root/scripts/quickstart.sh" ] || program=atomo-lua
  sed "s|build/atomo-lua|$program|g; s|\([ ;'(]\)scripts/|\1$folder|g"
}

# ---- packages -------------------------------------------------------------------------------------------------------
# One row per package: set | probe | Debian | Fedora | Homebrew | Spack.
# set: build (required), extra (recommended), test (required by scripts/test.sh), testextra (for further tests).
# probe (used without apt): commands, pc:MODULE (pkg-config) or h:HEADER; all must be found.
package_table() {
  cat <<'TABLE'
build|cc|gcc libc6-dev|gcc glibc-devel|gcc|gcc
build|make|make|make|make|gmake
build|cmake|cmake|cmake|cmake|cmake
build|pkg-config|pkg-config|pkgconf-pkg-config|pkgconf|pkgconf
build|pc:luajit|libluajit-5.1-dev|luajit-devel|luajit|luajit
build|mpicc mpirun|libopenmpi-dev openmpi-bin|openmpi-devel|open-mpi|openmpi
build|pc:openblas|libopenblas-openmp-dev|openblas-devel|openblas|openblas threads=openmp
build|h:lapacke.h|liblapacke-dev|lapack-devel|openblas|openblas threads=openmp
build|pc:fftw3f|libfftw3-dev|fftw-devel|fftw|fftw precision=float,double ~mpi
build|pc:zlib|zlib1g-dev|zlib-devel|zlib|zlib
extra|h:oneapi/dnnl/dnnl.h|libdnnl-dev|onednn-devel|onednn|onednn
extra|h:png.h|libpng-dev|libpng-devel|libpng|libpng
extra|h:jpeglib.h|libjpeg-dev|libjpeg-turbo-devel|jpeg-turbo|libjpeg-turbo
extra|h:readline/readline.h|libreadline-dev|readline-devel|readline|readline
test|busted|lua-busted|luarocks|luarocks|lua-luarocks
testextra|luajit|luajit|luajit|luajit|luajit
testextra|luacheck|lua-check|luacheck|luacheck|lua-luacheck
testextra|clang|clang libclang-rt-dev|clang compiler-rt|llvm|llvm
testextra|rsvg-convert|librsvg2-bin|librsvg2-tools|librsvg|librsvg
testextra|dpkg-shlibdeps file|dpkg-dev file|dpkg-dev file|dpkg|dpkg
testextra|clang-format|clang-format|clang-tools-extra|clang-format|llvm
TABLE
}

# Prints the Debian packages of these sets.
debian_packages() {
  package_table | while IFS='|' read -r set probe debian _; do
    case " $* " in *" $set "*) echo "$debian" ;; esac
  done
}

# Is everything in a row's probe found?
probe_found() {
  for p in $1; do
    case $p in
    pc:*) pkg-config --exists "${p#pc:}" 2>/dev/null || return 1 ;;
    h:*) header_found "${p#h:}" || return 1 ;;
    *) have "$p" || return 1 ;;
    esac
  done
}

header_found() {
  flags=$(pkg-config --cflags openblas readline 2>/dev/null || pkg-config --cflags openblas 2>/dev/null || true)
  # shellcheck disable=SC2086
  printf '#include <stdio.h>\n#include <%s>\n' "$1" | ${CC:-cc} -E -I/usr/include/openblas -I/usr/include/lapacke $flags - >/dev/null 2>&1
}

# Prints the Debian packages of these sets that are not installed, on one line.
missing_debian() {
  for p in $(debian_packages "$@"); do
    dpkg_installed "$p" || printf '%s ' "$p"
  done
}

dpkg_installed() { # the package itself, or an installed one that provides it (pkgconf for pkg-config)
  case " $(dpkg-query -W -f='${db:Status-Status} ' "$1" 2>/dev/null)" in *" installed "*) return 0 ;; esac
  case $1 in pkg-config) dpkg_installed pkgconf ;; *) return 1 ;; esac
}

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif have sudo; then sudo "$@"
  else die "needs root to install packages and there is no sudo: as root, run  apt-get install $apt_wanted"
  fi
}

apt_has() { apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'; }

# ensure_packages NEEDED OPTIONAL: installs missing packages of these sets (each a quoted list) by one apt call.
ensure_packages() {
  if ! have apt-get || ! have dpkg-query; then ensure_without_apt "$1"; return; fi
  # shellcheck disable=SC2086
  apt_wanted=$(missing_debian $1)
  # shellcheck disable=SC2086
  apt_extra=$(missing_debian $2)
  if [ -z "$apt_wanted$apt_extra" ]; then say "packages: all installed"; return; fi
  say "packages: installing $apt_wanted$apt_extra"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq || say "apt-get update failed, trying with the lists that are there"
  for p in $apt_extra; do # some distributions do not have these; they are optional
    if apt_has "$p"; then apt_wanted="$apt_wanted$p "; else say "$p is not in this distribution's lists: going on without"; fi
  done
  [ -n "$apt_wanted" ] || return 0
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $apt_wanted >"$(apt_log)" 2>&1 || {
    tail -n 20 "$(apt_log)" >&2
    die "apt-get install failed (whole output: $(apt_log))"
  }
}

apt_log() { mkdir -p "$root/build"; echo "$root/build/apt.log"; }

# Without apt: continues if all probes are found, else prints the names of the packages in other systems and stops.
ensure_without_apt() {
  lacking=$(package_table | while IFS='|' read -r set probe debian fedora brew spack; do
    case " $1 " in *" $set "*) probe_found "$probe" || echo "$set|$probe|$debian|$fedora|$brew|$spack" ;; esac
  done)
  if [ -z "$lacking" ]; then say "packages: all found (no apt here)"; return; fi
  names() { printf '%s\n' "$lacking" | cut -d'|' -f"$1" | sort -u | tr '\n' ' '; }
  {
    echo "${0##*/}: some packages are missing, and there is no apt here to install them with."
    echo "  missing:         $(names 2)"
    echo "  Fedora:          sudo dnf install $(names 4)"
    echo "  Homebrew:        brew install $(names 5)"
    echo "  Spack:           spack install $(printf '%s\n' "$lacking" | cut -d'|' -f6 | sort -u | tr '\n' ';' | sed 's/;$//; s/;/ ; spack install /g')"
    echo "  (on Debian:      apt-get install $(names 3))"
    case $lacking in *busted*) echo "  then busted:     luarocks --lua-version=5.1 install busted" ;; esac
    echo "Install them, see that mpirun is on PATH (Fedora: module load mpi/openmpi-x86_64), and run this again."
  } >&2
  exit 1
}

# ---- building -------------------------------------------------------------------------------------------------------
# build_preset PRESET DIR [TARGET] [cmake options...]: configures and builds incrementally, or completely if the tree was
# moved. Prints CMake's output only if it fails.
build_preset() {
  preset=$1 dir=$2 target=$3; shift 3
  mkdir -p "$root/$dir"
  log="$root/$dir/build.log" fresh=
  home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$root/$dir/CMakeCache.txt" 2>/dev/null || true)
  [ -z "$home" ] || [ "$home" = "$root" ] || fresh=--fresh
  say "configuring $dir (preset $preset${*:+ $*})"
  # shellcheck disable=SC2086
  (cd "$root" && cmake --preset "$preset" -B "$root/$dir" $fresh "$@") >"$log" 2>&1 || { tail -n 30 "$log" >&2; return 1; }
  grep -E '^-- atomo: ' "$log" || true
  say "building $dir on $(cores) cores"
  (cd "$root" && cmake --build "$root/$dir" -j "$(cores)" --target "$target") >>"$log" 2>&1 || {
    { grep -E -A 4 'error:|undefined reference' "$log" || tail -n 40 "$log"; } | head -n 60 >&2 # with -j other files follow it
    return 1
  }
}

# ---- MPI ------------------------------------------------------------------------------------------------------------
# Sets environment variables of Open MPI, so that the command stays `mpirun -n N program`.
# mpi_settings RANKS
mpi_settings() {
  if [ "$(id -u)" = 0 ]; then # mpirun refuses to run as root otherwise
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  if [ "$1" -gt "$(mpi_slots)" ]; then # allow more ranks than cores; waiting ranks yield
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
  fi
  if in_container && ! may_trace; then # a rank cannot read another's memory: copy through shared memory
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
  fi
  if ! grep -q -w -F -e "$(uname -n)" /etc/hosts 2>/dev/null; then # mpirun looks up its host name: do not wait for the DNS
    export RES_OPTIONS="timeout:1 attempts:1"
  fi
}

# Prints Open MPI's number of slots: cores, not hardware threads.
mpi_slots() {
  physical=$(lscpu -p=Core,Socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)
  logical=$(cores)
  if [ "$physical" -gt 0 ] && [ "$physical" -lt "$logical" ]; then echo "$physical"; else echo "$logical"; fi
}

in_container() {
  [ -e /.dockerenv ] || [ -e /run/.containerenv ] || [ -n "${container:-}" ] || [ -n "${KUBERNETES_SERVICE_HOST:-}" ]
}

# Is CAP_SYS_PTRACE (bit 19) an effective capability?
may_trace() {
  case $(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status 2>/dev/null) in
  *[89a-f]????) return 0 ;;
  *) return 1 ;;
  esac
}
