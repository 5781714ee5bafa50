#!/usr/bin/env bash
# Runs MLflow's server: on the head of a cluster, or for yourself on a machine with other users.
#
#   mlflow_server.sh          starts the server unless a server already answers, and waits until the server answers
#   mlflow_server.sh start    starts the server unless a server already answers, without waiting
#   mlflow_server.sh stop     stops the server that this script started
#
# MLflow has no login, and every user of a machine can connect to its ports. So on a machine with other users, use a
# socket in a private folder, and forward the socket to your own machine with ssh (docs/browse.md):
#
#   MLFLOW_SOCKET=~/.mvae-mlflow/socket bash cluster/mlflow_server.sh
#
# Without MLFLOW_SOCKET, only this machine can connect to the server. From other machines, forward the port.
#
# MLFLOW_SOCKET                path of the socket. The script creates the socket's folder, which only you can enter. It
#                              refuses an existing folder that other users can enter
# MLFLOW_BACKEND_STORE_URI     database, for example postgresql://USER:PASSWORD@HOST/DATABASE. Default: SQLite on this
#                              disk; if the disk is lost, the next sweep fills a new database from storage. Default with
#                              a socket: mlflow.db in MVAE_STORAGE or ./runs, to which sweeps write by default
# MLFLOW_ARTIFACTS_DESTINATION folder or bucket of pictures and models (default: mlartifacts in MVAE_STORAGE)
# MLFLOW_PORT                  port (default: 5000)
set -euo pipefail

port=${MLFLOW_PORT:-5000}
socket=${MLFLOW_SOCKET:+$(realpath -ms -- "$MLFLOW_SOCKET")}
if [[ $socket ]]; then
  folder=$(dirname "$socket")
  url=$socket
else
  folder=$HOME/.mlflow
  url=http://127.0.0.1:$port
fi

answers() {
  python - "$url" 2>/dev/null <<'END'
import socket, sys, urllib.request

if sys.argv[1].startswith("http"):
    urllib.request.urlopen(f"{sys.argv[1]}/health", timeout=5)
else:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(5)
        asking.connect(sys.argv[1])
        asking.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        sys.exit(b" 200 " not in asking.recv(100))
END
}

ours() { # whether the server that this script started still runs; checks that the pid was not reused
  [[ -r $folder/pid ]] && pid=$(<"$folder/pid") && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "mlflow server"
}

refuse() {
  echo "mlflow_server.sh: $1" >&2
  exit 2
}

make_private() { # makes the socket's folder private: the server itself lets every user connect to the socket
  ((${#socket} < 108)) || refuse "MLFLOW_SOCKET $socket has ${#socket} characters, but Linux allows 107: choose a shorter path"
  [[ $socket == *[[:space:]]* ]] && refuse "MLFLOW_SOCKET $socket contains a space: choose another path"
  mkdir -p -- "$(dirname "$folder")" && mkdir -m 700 -- "$folder" 2>/dev/null || true
  if [[ ! -d $folder || -L $folder || ! -O $folder || $(stat -c %a -- "$folder") != *00 ]]; then
    refuse "MLFLOW_SOCKET $socket: other users may enter $folder: choose a new folder, which this script creates, or type: chmod 700 $folder"
  fi
}

start() {
  ours && return
  listen=(--host 127.0.0.1 --port "$port")
  if [[ $socket ]]; then
    listen=(--uvicorn-opts "--uds $socket")
    storage=${MVAE_STORAGE:-$PWD/runs}
    if [[ $storage != *://* ]]; then storage=$(realpath -m -- "$storage"); fi
    if [[ -z ${MLFLOW_BACKEND_STORE_URI:-} && ! -d $storage ]]; then
      refuse "$storage is not a folder: set MVAE_STORAGE to your sweeps' folder, or MLFLOW_BACKEND_STORE_URI"
    fi
    export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$storage/mlflow.db}
  else
    mkdir -p "$folder"
    storage=${MVAE_STORAGE:-$HOME/runs}
    export MLFLOW_BACKEND_STORE_URI=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$folder/mlflow.db}
  fi
  export MLFLOW_ARTIFACTS_DESTINATION=${MLFLOW_ARTIFACTS_DESTINATION:-$storage/mlartifacts}
  # One worker and no job runner: 2 processes and 0.5 GB instead of the default's 15 and 2.5 GB.
  unset MLFLOW_TRACKING_URI # it names this server, which must not use itself as its store
  export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
  cd "$folder"
  setsid nohup mlflow server "${listen[@]}" --workers 1 </dev/null >"$folder/log" 2>&1 &
  echo $! >"$folder/pid"
}

show() { # prints what to type on the user's own machine
  [[ -z $socket ]] && return
  echo "MLflow: type on your own machine: ssh -N -L 5000:$socket $(id -un)@$(hostname), then open http://127.0.0.1:5000"
}

if [[ $socket ]]; then make_private; fi

case ${1:-} in
stop)
  if ours; then kill -- "-$pid"; fi # kills the process group, including children
  ;;
start)
  answers || start
  ;;
"")
  answers || start
  for _ in {1..120}; do
    answers && show && exit
    ours || break
    sleep 1
  done
  echo "MLflow's server does not answer at $url: $(tail -n 1 "$folder/log" 2>/dev/null) (full log: $folder/log)" >&2
  exit 1
  ;;
*)
  refuse "unknown command $1: use start, stop or nothing"
  ;;
esac
