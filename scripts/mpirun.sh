#!/bin/sh
# mpirun.sh -n RANKS ... - mpirun with the settings that this machine needs: as root, in a container, with fewer cores
# than ranks. They are environment variables of Open MPI; printed with MPIRUN_VERBOSE=1.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$root/scripts/lib.sh"

ranks=$(cores) previous=
for word in "$@"; do
  case $previous in -n | -np | --np | -c) ranks=$word; break ;; esac
  previous=$word
done
case $ranks in '' | *[!0-9]*) die "the number of ranks is '$ranks', expected a whole number" ;; esac
have mpirun || die "mpirun is missing: sh scripts/quickstart.sh installs it"
mpi_settings "$ranks"
if [ -n "${MPIRUN_VERBOSE:-}" ]; then env | grep '^OMPI_' >&2 || true; fi
exec mpirun "$@"
