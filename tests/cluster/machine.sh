#!/bin/bash
# machine.sh NAME ADDRESS STATE VENV PYTHON HIDDEN: the first process of one machine of the lab, in its own namespaces.
# Its disk is STATE/NAME (root, tmp, run), which survives a power cut. The process becomes the machine's sshd.
#   VENV    the Python environment; each machine has a private writable layer over it
#   PYTHON  the installation that the environment was made from
#   HIDDEN  the checkout that runs the tests; machines see only the files sent to them
set -euo pipefail
NAME=$1 ADDRESS=$2 STATE=$3 VENV=$4 PYTHON=$5 HIDDEN=$6
[ $$ = 1 ] || { echo "machine.sh mounts over /root and /tmp: run it only as the first process of a machine" >&2; exit 2; }
DISK=$STATE/$NAME

mkdir -p "$DISK"/{root/.ssh,tmp,run/sshd,stage/venv,stage/python} "$STATE/layers/$NAME"/{upper,work}
chmod 700 "$DISK/root/.ssh"
chmod 1777 "$DISK/tmp"
chmod 755 "$DISK/run/sshd"
cp "$STATE/key.pub" "$DISK/root/.ssh/authorized_keys"
cp "$STATE/hostkey" "$DISK/run/sshd/hostkey"
chmod 600 "$DISK/run/sshd/hostkey"
cat >"$DISK/run/sshd/config" <<END
Port 22
ListenAddress $ADDRESS
HostKey /run/sshd/hostkey
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
AuthorizedKeysFile .ssh/authorized_keys
MaxSessions 50
MaxStartups 50
PrintMotd no
PrintLastLog no
END
if [ ! -e "$DISK/root/.profile" ]; then # like a machine whose user activates an environment at login
  echo '. ~/.bashrc' >"$DISK/root/.profile"
  echo "case :\$PATH: in *:$VENV/bin:*) ;; *) export PATH=$VENV/bin:\$PATH ;; esac" >"$DISK/root/.bashrc"
fi

# Mount everything from the box's /root, /tmp and checkout before these are covered.
mount -t overlay overlay -o "lowerdir=$VENV,upperdir=$STATE/layers/$NAME/upper,workdir=$STATE/layers/$NAME/work" "$DISK/stage/venv"
mount --bind "$PYTHON" "$DISK/stage/python"
mount -t tmpfs -o size=2g,mode=1777 shm /dev/shm
mount -t proc proc /proc
mount --bind "$STATE/hosts" /etc/hosts
mount --bind "$STATE/shared" /mnt
mount --bind "$DISK/run" /run
mount --bind "$DISK/root" /root
case $HIDDEN/ in /tmp/* | ~root/*) ;; *) mount -t tmpfs -o size=1m hidden "$HIDDEN" ;; esac
lies_at() { # lies_at MOUNT PATH: moves a mount to PATH on the machine; /tmp is covered last
  local at=$2
  case $at in /tmp/*) at=$DISK$at ;; esac
  mkdir -p "$at"
  mount --move "$1" "$at"
}
lies_at "$DISK/stage/python" "$PYTHON"
lies_at "$DISK/stage/venv" "$VENV"
mount --rbind "$DISK/tmp" /tmp

hostname "$NAME"
ip link set lo up
until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
ip addr add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default via 10.77.0.254 # leads nowhere, but Ray needs it to find its own address
exec /usr/sbin/sshd -D -e -f /run/sshd/config
