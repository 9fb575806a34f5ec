#!/bin/sh
# slurm.sh BUILD_DIR - runs the job files of docs/cluster.md under a real Slurm: one slurmctld and four slurmd on this
# host, each of these with a host name, a /tmp and a port of its own, and munge with a key of its own. Ends with "N passed,
# N failed". Skipped, saying so, without root or Debian's slurmctld, slurmd, slurm-client and munge.
set -u
build=$(cd "${1:?usage: slurm.sh BUILD_DIR}" && pwd) || exit 2
tree=$(cd "$(dirname "$0")/.." && pwd) || exit 2

skip() { echo "slurm: skipped: $*"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root, for host names and folders of each node"
for tool in slurmctld slurmd sbatch srun munged mungekey unshare; do
  PATH=$PATH:/usr/sbin command -v $tool >/dev/null 2>&1 || skip "$tool is not installed (Debian: slurmctld slurmd slurm-client munge)"
done
unshare -mu true 2>/dev/null || skip "this machine allows no namespaces (unshare -mu)"
case $tree/ in /tmp/*) skip "the tree is in /tmp, and each node has another /tmp" ;; esac
PATH=$PATH:/usr/sbin

room=$(mktemp -d /var/tmp/slurm.XXXXXX) # not in /tmp: each node has another one
started=''
end() { # jobs first: their processes are children of no daemon
  if [ -n "${SLURM_CONF:-}" ]; then
    timeout 20 scancel --user=root >/dev/null 2>&1
    await 40 empty
  fi
  for p in $started; do kill "$p" 2>/dev/null; done
  for p in $started; do wait "$p" 2>/dev/null; done
  rm -rf "$room"
}
trap end EXIT
trap 'exit 143' TERM INT HUP
. "$tree/tests/support/expect.sh"

# ---- a cluster ------------------------------------------------------------------------------------------------------
daemon() { # NAME COMMAND...: starts a daemon of this test
  log=$room/$1.out; shift
  "$@" >"$log" 2>&1 </dev/null &
  started="$started $!"
}

base=$((20000 + $$ % 2000 * 5)) # ports: slurmctld's, then one for each node
host=$(uname -n)
mkdir "$room/state"
cat >"$room/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$room/munge.socket,cred_expire=5
StateSaveLocation=$room/state
SlurmdSpoolDir=$room/%n/spool
SlurmctldPidFile=$room/slurmctld.pid
SlurmdPidFile=$room/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName=n1 NodeAddr=127.0.0.1 Port=$((base + 1)) CPUs=2
NodeName=n2 NodeAddr=127.0.0.1 Port=$((base + 2)) CPUs=2
NodeName=n3 NodeAddr=127.0.0.1 Port=$((base + 3)) CPUs=2
NodeName=n4 NodeAddr=127.0.0.1 Port=$((base + 4)) CPUs=2
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$room/slurm.conf"
printf '127.0.0.1 localhost %s n1 n2 n3 n4\n' "$host" >"$room/hosts"

mungekey --create --keyfile "$room/munge.key"
chmod 700 "$room"
daemon munged munged --foreground --force --socket="$room/munge.socket" --key-file="$room/munge.key" \
  --pid-file="$room/munged.pid" --log-file="$room/munged.log" --seed-file="$room/munged.seed"
daemon slurmctld slurmctld -D -f "$SLURM_CONF"
for node in n1 n2 n3 n4; do
  mkdir -p "$room/$node/spool" "$room/$node/tmp"
  # shellcheck disable=SC2016
  daemon $node unshare -mu sh -c 'hostname "$1"; mount --bind "$2/hosts" /etc/hosts; mount --bind "$2/$1/tmp" /tmp; exec slurmd -D -N "$1" -f "$2/slurm.conf"' _ $node "$room"
done

# await SECONDS COMMAND...: waits until the command succeeds. A busy machine takes several times as long as an idle one.
await() {
  left=$(($1 * 2)); shift
  until "$@" >/dev/null 2>&1; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 1))
    sleep 0.5
  done
}
empty() { [ -z "$(timeout 20 squeue -h)" ]; }
idle() { [ "$(sinfo -h -N -t idle -o %N | wc -l)" = 4 ]; }
if ! await 60 idle; then
  tail -n 5 "$room"/*.out "$room/munged.log"
  skip "Slurm's daemons do not start here"
fi

# ---- the job files --------------------------------------------------------------------------------------------------
cd "$room" || exit 1
ln -s "$build" build
ln -s "$tree/scripts" scripts
# job_file N: prints the N-th job file of docs/cluster.md, with a small model and the checkpoints where OUTPUT is.
job_file() { awk -v n="$1" '/^```/ { inside = 0 } inside == n { print } /^```sh/ { getline line; if (line == "#!/bin/sh") { inside = ++seen; if (seen == n) print line } }' "$tree/docs/cluster.md" |
  sed 's/--model resnet18/--model lenet/; s/--save run/--save "$OUTPUT.run"/'; }
job_file 1 >srun.sbatch
job_file 2 >mpirun.sbatch
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1

# submit FILE OUTPUT SBATCH'S OPTIONS -- ARGUMENTS: sets job. The options override those of the file.
submit() {
  file=$1 output=$2; shift 2
  export OUTPUT="$room/$output"
  options=''
  while [ "$1" != -- ]; do options="$options $1"; shift; done
  shift
  # shellcheck disable=SC2086
  job=$(sbatch --parsable --nodes=2 --cpus-per-task=1 --output="$output" $options "$file" --batch 8 --train-images 256 "$@")
}
says() { grep -q -e "$1" "$2"; }                             # TEXT FILE
state_is() { [ "$(squeue -h -j "$job" -o %T 2>/dev/null)" = "$1" ]; }
gone() { [ -z "$(squeue -h -j "$job" 2>/dev/null)" ]; }
nodes() { scontrol show job "$job" | sed -n 's/^ *NodeList=//p'; }
cancel() { scancel "$job"; await 120 gone; }

for kind in srun mpirun; do
  submit $kind.sbatch $kind.out -- --max-steps 3
  expect "$kind: the job ends" "" await 240 gone
  expect "$kind: with a rank on each of two nodes" "ranks: 2, threads a rank" cat $kind.out
  expect "$kind: and its result" "final test accuracy" cat $kind.out
done

# The time limit, of both at the same time: Slurm sends the signal up to a minute before it is due.
submit srun.sbatch srun.limited --time=2 --signal=B:USR2@60 -- --epochs 100000 --eval-every 0
first=$job
submit mpirun.sbatch mpirun.limited --time=2 --signal=B:USR2@60 -- --epochs 100000 --eval-every 0
for kind in srun mpirun; do
  expect "$kind: the run saves before the time limit, is requeued and continues" "" await 300 says "resuming after epoch" $kind.limited
  expect "$kind: the first run ended with a checkpoint" "is saved, and the run stops" cat $kind.limited
done
expect "mpirun: ends when it is cancelled, and is not requeued" "" cancel
job=$first
expect "srun: ends when it is cancelled, and is not requeued" "" cancel

# A drained node.
submit srun.sbatch drained.out -- --epochs 100000 --eval-every 0
expect "a run on two nodes begins" "" await 240 says "^epoch 1/" drained.out
expect "one of them is drained" "" scontrol update NodeName=n2 State=DRAIN Reason=test
expect "which leaves the job running" "" state_is RUNNING
expect "it is requeued" "" scontrol requeue "$job"
expect "and continues" "" await 240 says "resuming after epoch" drained.out
expect "from what it saved for SIGTERM" "is saved, and the run stops, as SIGTERM asks" cat drained.out
expect "on nodes that are left" "n[1,3]" nodes
expect "it ends when it is cancelled" "" cancel
expect "the drained node stays out" "n2" sinfo -h -t drain -o %N

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
