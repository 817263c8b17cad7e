#!/usr/bin/env bash
# A real Slurm of one node, for the length of this script: a suite is submitted, one job's process is
# killed and queued again, one is stopped by its time limit, and the checkpoints are those of the
# local back end. Nothing is left behind but the packages. No systemd, no cgroups, no accounting.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}

skip() { echo "slurm: skipped, $1" >&2; exit 0; }
# from TAUSCOPE_REQUIRE_SLURM=1 on, a missing Slurm is a failure
[ "${TAUSCOPE_REQUIRE_SLURM:-0}" = 1 ] && skip() { echo "slurm: failed, $1" >&2; exit 1; }

[ "$(uname -s)" = Linux ] || skip "Slurm runs on Linux alone"
[ "$(id -u)" -eq 0 ] || skip "its daemons are started as root here"
if ! command -v slurmctld slurmd sbatch munged >/dev/null; then
  command -v apt-get >/dev/null || skip "there is no apt-get to install it"
  export DEBIAN_FRONTEND=noninteractive
  # should a service start with it, nothing here meets it: sockets, ports and files are our own
  { apt-get update -qq \
      && apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client munge; } \
    >/dev/null 2>&1 || skip "apt-get could not install slurmctld slurmd slurm-client munge"
fi

FOLDER=$(mktemp -d /tmp/tauscope-slurm.XXXXXX)
export SLURM_CONF=$FOLDER/slurm.conf
started=()

stop() {
  status=$?
  trap - EXIT INT TERM
  if [ "$status" -ne 0 ]; then
    for log in "$FOLDER"/*.log "$FOLDER"/cache/jobs/supervisor.log "$FOLDER"/cache/jobs/.slurm/*.out \
        "$FOLDER"/cache/jobs/*/log.txt; do
      [ -s "$log" ] && { echo "--- ${log#"$FOLDER"/}"; tail -n 30 "$log"; } >&2
    done
  fi
  timeout 10 scancel --me >/dev/null 2>&1 || true
  # its steps would keep slurmd from leaving
  for _ in $(seq 50); do [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break; sleep 0.2; done
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for _ in $(seq 50); do kill -0 "${started[@]}" 2>/dev/null || break; sleep 0.1; done
  for pid in "${started[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  # the local back end's jobs and supervisor, if something went wrong before they were done
  for pid in $(pgrep -f -- "$FOLDER/local" || true); do kill "$pid" 2>/dev/null || true; done
  rm -rf "$FOLDER"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

free_port() { "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
HOST=$(hostname -s 2>/dev/null || hostname)
mkdir -p "$FOLDER"/{state,spool}
dd if=/dev/urandom of="$FOLDER/munge.key" bs=1 count=1024 status=none
chmod 600 "$FOLDER/munge.key"
chmod 755 "$FOLDER"
cat >"$SLURM_CONF" <<CONF
ClusterName=tauscope
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
AuthType=auth/munge
# a job queued again may start when the credential of its first start has run out
AuthInfo=socket=$FOLDER/munge.socket,cred_expire=5
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool
SlurmctldPidFile=$FOLDER/slurmctld.pid
SlurmdPidFile=$FOLDER/slurmd.pid
SlurmctldLogFile=$FOLDER/slurmctld.log
SlurmdLogFile=$FOLDER/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
MailProg=/bin/true
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE OverTimeLimit=0 State=UP
CONF

munged --foreground --force --socket="$FOLDER/munge.socket" --key-file="$FOLDER/munge.key" \
  --pid-file="$FOLDER/munge.pid" --log-file="$FOLDER/munge.log" --seed-file="$FOLDER/munge.seed" \
  >"$FOLDER/munged.out.log" 2>&1 &
started+=($!)
for _ in $(seq 50); do [ -S "$FOLDER/munge.socket" ] && break; sleep 0.1; done
[ -S "$FOLDER/munge.socket" ] || skip "munged does not start here"
slurmctld -D >"$FOLDER/slurmctld.out.log" 2>&1 &
started+=($!)
slurmd -D -N "$HOST" >"$FOLDER/slurmd.out.log" 2>&1 &
started+=($!)
for _ in $(seq 150); do
  [ "$(timeout 5 sinfo --noheader --format=%T 2>/dev/null)" = idle ] && break
  sleep 0.2
done
[ "$(timeout 5 sinfo --noheader --format=%T 2>/dev/null)" = idle ] || skip "its daemons do not start here"

# one slot: the local back end's copies run beside Slurm's jobs, in the time that Slurm waits
export OMP_NUM_THREADS=1 TAUSCOPE_CPU_SLOTS=1 TAUSCOPE_JOB_NICE=0 TAUSCOPE_CACHE=$FOLDER/cache
"$PYTHON" tests/slurm/suite.py
