#!/usr/bin/env bash
# MLflow's server on the head of a cluster, for this machine alone: others reach it through a port-forward.
#
#   mlflow_server.sh          starts it unless one answers, and waits until it does
#   mlflow_server.sh start    the same without waiting
#   mlflow_server.sh stop     ends the one that this script started
#
# MLFLOW_BACKEND_STORE_URI     its database; SQLite on this disk by default, which a lost disk takes away and the next
#                              sweep fills again from storage; or postgresql://USER:PASSWORD@HOST/DATABASE
# MLFLOW_ARTIFACTS_DESTINATION pictures and models; beside the sweeps in MVAE_STORAGE by default
# MLFLOW_PORT                  5000 by default
set -euo pipefail

folder=$HOME/.mlflow
port=${MLFLOW_PORT:-5000}
url=http://127.0.0.1:$port

answers() {
  python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$url/health" 2>/dev/null
}

ours() { # the process that this script started, and no other that has got its number since
  [[ -r $folder/pid ]] && pid=$(<"$folder/pid") && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "mlflow server"
}

start() {
  ours && return
  mkdir -p "$folder"
  export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$folder/mlflow.db}
  export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-${MVAE_STORAGE:-$HOME/runs}/mlartifacts}
  # One worker, and no job runner: 2 processes and 0.5 GB, where MLflow's defaults take 15 and 2.5 GB.
  unset MLFLOW_TRACKING_URI # the server's own address is no place for it to keep anything
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
  cd "$folder"
  setsid nohup mlflow server --host 127.0.0.1 --port "$port" --workers 1 </dev/null >"$folder/log" 2>&1 &
  echo $! >"$folder/pid"
}

case ${1:-} in
stop)
  if ours; then kill -- "-$pid"; fi # with its children: it leads a process group
  ;;
start)
  answers || start
  ;;
"")
  answers && exit
  start
  for _ in {1..120}; do
    answers && exit
    ours || break
    sleep 1
  done
  echo "MLflow's server does not answer at $url: $(tail -n 1 "$folder/log" 2>/dev/null) (all of it: $folder/log)" >&2
  exit 1
  ;;
*)
  echo "mlflow_server.sh $1: the words are start and stop, or none" >&2
  exit 2
  ;;
esac
