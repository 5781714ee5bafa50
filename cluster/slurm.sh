#!/usr/bin/env bash
# SLURM: one sweep as a batch job on one or several nodes. The job is requeued until its table is complete.
#
#   sbatch --gpus-per-node=1 cluster/slurm.sh pipelines/weak_supervision.py --dataset fashion_mnist --preset paper
#   sbatch --gpus-per-node=1 --nodes=4 cluster/slurm.sh pipelines/weak_supervision.py --dataset fashion_mnist --preset paper
#
# Run these commands in the clone. The clone, its .venv and the storage must be in folders that all nodes mount. After
# slurm.sh, name the pipeline and its options.
#
#   tail -f slurm-JOBID.out                         the sweep's output
#   scancel JOBID                                   ends the sweep; the same sbatch command resumes it
#   mvae prepare fashion_mnist                      downloads and converts a data set, on a node with internet
#   export MVAE_STORAGE=/scratch/me/mvae            before sbatch: folder of results and checkpoints (default: ./runs)
#
# To edit: the lines that begin with #SBATCH, and `requeues`. Options of sbatch override the #SBATCH lines, but change the
# seconds of --signal only in this file.
# Three minutes before the time limit, the job stops its trials and returns to the queue. In the minutes before, the trials
# save every epoch, so the restarted job repeats only the interrupted epoch. A preempted job, and a job that loses a node,
# also return to the queue.
# Details, and what was tested: docs/slurm.md.

#SBATCH --job-name=mvae
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
##SBATCH --gpus-per-node=1
##SBATCH --partition=NAME
##SBATCH --account=NAME

requeues=3 # times that the job may return to the queue without a newly finished trial

set -uo pipefail
export PATH=$PWD/.venv/bin:$PATH OMP_NUM_THREADS=1
unset RAY_ADDRESS RAY_AUTH_TOKEN # they may belong to another cluster, and Ray would prefer their token to the job's token
export MVAE_STARTED_BY='sbatch cluster/slurm.sh' # for the message that tells the user how to resume
stopped='' driver='' code=''
# SLURM signals only this script (--signal=B:), and this script signals only the driver, which needs Ray to end cleanly.
trap 'stopped=yes; [[ -z $driver ]] || kill -TERM "$driver" 2>/dev/null' TERM

say() { echo "slurm.sh: $*"; }

stops_at() { # prints the Unix time from which SLURM may signal this script: up to a minute earlier than --signal says
  local end before
  end=$(SLURM_TIME_FORMAT=standard scontrol show job -o "$SLURM_JOB_ID" | grep -o ' EndTime=[^ ]*') || return
  end=$(date -d "${end#*=}" +%s 2>/dev/null) || return # a job without a time limit
  before=$(sed -n 's/^#SBATCH --signal=B:TERM@//p' "$0")
  echo $((end - ${before:-180} - 60))
}

remove_leftovers() { # remove_leftovers PREFIX: deletes your folders PREFIX-JOBID-* of jobs that have left the queue
  local folder id jobs=''
  # Folders are listed before jobs, so the list of jobs contains every running job with a folder.
  for folder in "$1"-[0-9]*-*; do
    [[ -O $folder ]] || continue
    jobs=${jobs:-$(squeue --me --noheader --format=%A)}
    id=${folder#"$1"-} id=${id%-*}
    [[ -z $jobs || $'\n'$jobs$'\n' == *$'\n'"$id"$'\n'* ]] || rm -rf "$folder"
  done
}

ray_node() { # ray_node OPTIONS: runs Ray on this node until Ray ends
  local folder ray attempt log=$private/$SLURMD_NODENAME.log
  rm -rf "/tmp/mvae-$SLURM_JOB_ID-"* # leftovers of this job, if the node lost its power
  remove_leftovers /tmp/mvae
  # mktemp -d gives mode 0700. Ray lets all users write to Ray's own folder, so the outer folder must keep them out. The
  # path is short, because the path of a socket is limited to 107 bytes.
  folder=$(mktemp -d "/tmp/mvae-$SLURM_JOB_ID-XXXXXX")
  trap 'end "$ray" 2>/dev/null; pkill -KILL -f -- "$folder/"; rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }' EXIT
  trap 'exit 0' TERM USR1
  for attempt in 1 2 3; do # on a busy node, Ray may exceed its own limit of 30 seconds for starting
    ray start --block "$@" --temp-dir="$folder/r" --num-cpus="$SLURM_CPUS_PER_TASK" --object-store-memory=200000000 \
      --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --disable-usage-stats >"$log" 2>&1 &
    ray=$!
    wait "$ray"
    (($? == 1)) || break
    echo "slurm.sh: Ray failed on $SLURMD_NODENAME (attempt $attempt of 3):" && tail -n 20 "$log"
    ! grep -q 'Ray runtime started' "$log" || break
    pkill -KILL -f -- "$folder/" # processes of the failed start
  done
}

end() { # end PID: ends a Ray node with its processes; kills it if it does not end within ten seconds
  kill "$1"
  for _ in {1..50}; do kill -0 "$1" && sleep 0.2 || break; done
  kill -KILL "$1"
  wait "$1"
}

start_ray() { # starts a head on this node and workers on the others; only processes with the job's token can connect
  local address port others deadline
  export private=$PWD/.slurm-$SLURM_CLUSTER_NAME-$SLURM_JOB_ID
  rm -rf "$private-"* # leftovers of this job, if this node lost its power
  private=$(mktemp -d "$private-XXXXXX") # mode 0700, in the clone, which all nodes mount
  (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$private/token")
  export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token
  address=$(scontrol show node -o "$SLURMD_NODENAME" | grep -o 'NodeAddr=[^ ]*')
  address=$(getent ahostsv4 "${address#*=}" | awk 'NR == 1 { print $1 }')
  port=$(free_ports)
  ray_node --head --node-ip-address="$address" --port="$port" --ray-client-server-port="$((port + 1))" \
    --include-dashboard=false &
  head=$!
  until grep -qs 'Ray runtime started' "$private/$SLURMD_NODENAME.log"; do
    kill -0 "$head" 2>/dev/null || return 1
    sleep 0.2
  done
  export -f ray_node end remove_leftovers
  others=$((SLURM_JOB_NUM_NODES - 1))
  srun --overlap --export=ALL --relative=1 --nodes="$others" --ntasks="$others" --ntasks-per-node=1 \
    --cpus-per-task="$SLURM_CPUS_PER_TASK" --no-kill bash -c "ray_node --address=$address:$port" &
  workers=$!
  deadline=$((SECONDS + 300)) # enough for three attempts on a busy node
  until [[ -n $stopped ]] || ((SECONDS > deadline || $(grep -ls 'Ray runtime started' "$private/"*.log | wc -l) > others)); do
    kill -0 "$workers" 2>/dev/null || break
    sleep 0.5
  done
  export RAY_ADDRESS=$address:$port
}

free_ports() { # prints the first of two neighbouring free ports; each job starts its search at another port
  python - "$SLURM_JOB_ID" <<'END'
import contextlib, socket, sys
for attempt in range(1000):
    first = 20000 + 2 * ((int(sys.argv[1]) + attempt) % 6000)
    with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
        one.bind(("", first)), two.bind(("", first + 1))
        sys.exit(print(first))
END
}

end_ray() { # ends the workers first, because they need the head to end cleanly
  kill -USR1 $workers 2>/dev/null # srun forwards this signal; after TERM it would report an error
  [[ -z $workers ]] || wait $workers 2>/dev/null
  kill $head 2>/dev/null
  [[ -z $head ]] || wait $head 2>/dev/null
  rm -rf "$private"
}

requeued() { # prints how often this job returned to the queue since the last finished trial; reads the job's output
  awk -v line="^slurm.sh: job $SLURM_JOB_ID returns to the queue" \
    '/^\[ *[0-9]+\/[0-9]+\] / && !/  failed: / { n = 0 } $0 ~ line { n++ } END { print n + 0 }' "/proc/$$/fd/1"
}

remove_leftovers "$PWD/.slurm-${SLURM_CLUSTER_NAME:-}"
remove_leftovers /tmp/mvae
MVAE_STOPS_AT=$(stops_at) && export MVAE_STOPS_AT
if ((SLURM_JOB_NUM_NODES > 1)); then
  private='' head='' workers=''
  trap 'end_ray' EXIT
  start_ray || exit 1
fi
if [[ -z $stopped ]]; then
  python "$@" &
  driver=$!
  [[ -z $stopped ]] || kill -TERM "$driver"                            # the signal came before the previous line
  while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done         # a signal interrupts `wait`
  wait "$driver"
  code=$?
fi
((SLURM_JOB_NUM_NODES > 1)) && trap - EXIT && end_ray

# A pipeline exits with 0 if the table is complete, 1 if a trial failed, 2 if it refuses its options, 3 if --max-hours is
# over. In these cases, do not requeue the job. SLURM itself requeues a preempted job, and a job cancelled by scancel must
# not return: neither is RUNNING now.
[[ -n $stopped && $code != [0123] ]] || exit "$code"
[[ $(scontrol show job -o "$SLURM_JOB_ID") == *" JobState=RUNNING "* ]] || exit "$code"
past=$(requeued)
if ((past >= requeues)); then
  say "the job returned to the queue $requeues times without a newly finished trial: give it more time (sbatch --time)"
  exit 1
fi
say "job $SLURM_JOB_ID returns to the queue ($((past + 1)) of at most $requeues times without a newly finished trial)"
scontrol requeue "$SLURM_JOB_ID"
