#!/bin/sh
# Runs before systemd: takes the address that the kernel's command line names (see boot.sh), which needs no udev then.
set -eu
mount -t proc proc /proc
for word in $(cat /proc/cmdline); do
    case $word in
        vm.address=*) address=${word#*=} ;;
        vm.gateway=*) gateway=${word#*=} ;;
        vm.mtu=*) mtu=${word#*=} ;;
        vm.nameservers=*) nameservers=${word#*=} ;;
    esac
done
umount /proc
ip address add "$address" dev vec0
ip link set vec0 mtu "$mtu" up
ip route add default via "$gateway"
echo "$nameservers" | tr , '\n' | sed 's/^/nameserver /' > /etc/resolv.conf

# A root that the kernel mounted is called /dev/root. On servers an initial RAM disk mounts it, by its name.
mount -t ext4 /dev/ubda /mnt
exec switch_root /mnt /sbin/init
