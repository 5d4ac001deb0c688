#!/bin/sh
# Boots the machine of this container, which takes over the container's address: boot MEMORY NAME [SIZE...]
# MEMORY: MiB. NAME: its host name. SIZE: of further, empty disks. /image/root.img is the root disk, never written to.
set -eu
memory=$1
name=$2
shift 2

mac=$(cat /sys/class/net/eth0/address)
mtu=$(cat /sys/class/net/eth0/mtu)
address=$(ip -4 -o address show dev eth0 | awk '{print $4}')
gateway=$(ip -4 route show default | awk '{print $3}')
nameservers=$(awk '/^nameserver/ {print $2}' /etc/resolv.conf | paste -s -d ,)
ip address flush dev eth0

disks=ubda=/disk.cow,/image/root.img
letter=b
for size in "$@"; do
    [ -e "/disk-$letter.img" ] || truncate -s "$size" "/disk-$letter.img"
    disks="$disks ubd$letter=/disk-$letter.img"
    letter=$(echo "$letter" | tr a-y b-z)
done

# The machine's memory is a file, which must be executable: Docker's /dev/shm is not.
export TMPDIR=/memory
# It reboots in the same process. This shell stays before it: as process 1 it would inherit what it does not know.
# shellcheck disable=SC2086
LD_PRELOAD=/usr/local/lib/preload.so linux.uml "mem=${memory}M" $disks root=/dev/ubda rw con=null con0=null,fd:1 \
    "vec0:transport=raw,ifname=eth0,depth=128,gro=1,mac=$mac" \
    "vm.address=$address" "vm.gateway=$gateway" "vm.mtu=$mtu" "vm.nameservers=$nameservers" \
    "systemd.hostname=$name" security=apparmor init=/usr/local/sbin/vm-init
exit 1
