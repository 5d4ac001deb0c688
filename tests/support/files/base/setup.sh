#!/bin/sh
# Runs once, in the image: turns a debootstrapped root into a server somebody can log in to.
set -eu
user=$1

useradd --create-home --shell /bin/bash "$user"
usermod --password '*' "$user"
install -d -m 0700 -o "$user" -g "$user" "/home/$user/.ssh"
install -m 0600 -o "$user" -g "$user" /tmp/authorized_keys "/home/$user/.ssh/authorized_keys"
rm /tmp/authorized_keys
printf '%s ALL=(ALL:ALL) NOPASSWD:ALL\n' "$user" > "/etc/sudoers.d/90-$user"
chmod 0440 "/etc/sudoers.d/90-$user"
visudo --check --quiet

printf 'LANG=C.UTF-8\n' > /etc/default/locale

rm -f /usr/local/share/ca-certificates/.keep
update-ca-certificates
if ls /usr/local/share/ca-certificates/*.crt > /dev/null 2>&1; then
    # pip brings its own authorities; environment variables do not survive systemd or sudo.
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > /etc/pip.conf
fi

# Every server gets its own identity when it boots for the first time.
rm -f /etc/ssh/ssh_host_*
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id
systemctl enable ssh.service ssh-host-keys.service

# Their random runs would take apt's lock in the middle of a test.
systemctl disable apt-daily.timer apt-daily-upgrade.timer

# Packages start their services when they are installed, as on any server.
rm -f /usr/sbin/policy-rc.d
