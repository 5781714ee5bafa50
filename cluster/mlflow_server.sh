#!/usr/bin/env bash
# Runs MLflow's server on the head of a cluster. The server listens only on this machine: use a port-forward from other
# machines.
#
#   mlflow_server.sh          starts the server unless one answers, and waits until it answers
#   mlflow_server.sh start    starts the server unless one answers, without waiting
#   mlflow_server.sh stop     stops the server that this script started
#
# MLFLOW_BACKEND_STORE_URI     database, for example postgresql://USER:PASSWORD@HOST/DATABASE (default: SQLite on this
#                              disk; if the disk is lost, the next sweep fills a new database from storage)
# MLFLOW_ARTIFACTS_DESTINATION folder or bucket of pictures and models (default: mlartifacts in MVAE_STORAGE)
# MLFLOW_PORT                  port (default: 5000)
set -euo pipefail

folder=$HOME/.mlflow
port=${MLFLOW_PORT:-5000}
url=http://127.0.0.1:$port

answers() {
  python -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)' "$url/health" 2>/dev/null
}

ours() { # whether the process that this script started still runs, and its pid was not reused
  [[ -r $folder/pid ]] && pid=$(<"$folder/pid") && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "mlflow server"
}

start() {
  ours && return
  mkdir -p "$folder"
  export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$folder/mlflow.db}
  export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-${MVAE_STORAGE:-$HOME/runs}/mlartifacts}
  # One worker and no job runner: 2 processes and 0.5 GB instead of the default's 15 and 2.5 GB.
  unset MLFLOW_TRACKING_URI # names this server, which must not use itself as its store
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
  cd "$folder"
  setsid nohup mlflow server --host 127.0.0.1 --port "$port" --workers 1 </dev/null >"$folder/log" 2>&1 &
  echo $! >"$folder/pid"
}

case ${1:-} in
stop)
  if ours; then kill -- "-$pid"; fi # kills the process group, including children
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
  echo "MLflow's server does not answer at $url: $(tail -n 1 "$folder/log" 2>/dev/null) (full log: $folder/log)" >&2
  exit 1
  ;;
*)
  echo "mlflow_server.sh: unknown command $1: use start, stop or nothing" >&2
  exit 2
  ;;
esac
