"""When the host cannot be closed: what is said, and what the hub's unit leaves of root's powers."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys

import pytest
from tljh_plasma import firewall, iptables
from tljh_plasma.firewall import FirewallError

BRIDGE = "br-plasmat"
NETWORK = {
    "Name": "plasmat",
    "Id": "0123456789ab" + "0" * 52,
    "Options": {"com.docker.network.bridge.name": BRIDGE},
    "IPAM": {"Config": [{"Subnet": "10.99.0.0/24", "Gateway": "10.99.0.1"}]},
}

PROTECT = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
from tljh_plasma import firewall
network = json.loads(sys.argv[1])
firewall.protect(network, 15001)
firewall.protect(network, 15001)
print(firewall.is_protected(network, 15001), firewall.tables("iptables").prefix)
"""


@pytest.fixture
def namespace():
    """Tables of our own: a network namespace with a bridge."""
    name = f"plasmat-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "add", BRIDGE, "type", "bridge"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def protect_in(namespace: str, *before: str, code: str = PROTECT) -> subprocess.CompletedProcess[str]:
    command = ["ip", "netns", "exec", namespace, *before, sys.executable, "-c", code, json.dumps(NETWORK)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def tables_in(namespace: str, program: str = "iptables") -> str:
    done = subprocess.run(["ip", "netns", "exec", namespace, f"{program}-save"], capture_output=True, text=True)
    return done.stdout


@pytest.mark.docker
def test_works_within_the_units_sandbox(namespace):
    """PrivateDevices, ProtectKernelModules and ProtectKernelTunables, as systemd makes them."""
    script = (
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys\n"
        "if [ -d /lib/modules ]; then mount -t tmpfs none /lib/modules; fi\n"
        "if echo 1 >/proc/sys/net/ipv4/ip_forward; then exit 9; fi 2>/dev/null\n"
        'exec setpriv --bounding-set=-sys_module,-mknod,-sys_rawio "$@"'
    )
    done = protect_in(namespace, "unshare", "--mount", "sh", "-ec", script, "sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("True ")
    assert f"-j PLASMA-IN-{BRIDGE}" in tables_in(namespace)
    assert f"-j PLASMA-IN-{BRIDGE}" in tables_in(namespace, "ip6tables")


@pytest.mark.docker
@pytest.mark.parametrize(("broken", "taken"), [([""], "-legacy"), (["", "-legacy"], "-nft")])
def test_other_tools_are_taken_where_the_systems_choice_does_not_work(broken, taken, namespace, tmp_path):
    """A kernel without nftables, or one without the module for the older tools."""
    for name in ("iptables", "ip6tables"):
        for variant in broken:
            for what in ("save", "restore"):
                tool = tmp_path / f"{name}{variant}-{what}"
                tool.write_text("#!/bin/sh\necho 'Cannot initialize: iptables who?' >&2\nexit 1\n")
                tool.chmod(0o755)
    path = f"from tljh_plasma import iptables\niptables.SYSTEM_PATH = '{tmp_path}:' + iptables.SYSTEM_PATH\n"
    done = protect_in(namespace, code=PROTECT.replace("network =", f"{path}network =", 1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"True iptables{taken}"
    for name in ("iptables", "ip6tables"):
        assert f"-j PLASMA-IN-{BRIDGE}" in tables_in(namespace, f"{name}{taken}")


@pytest.mark.docker
def test_a_kernel_that_counts_no_connections_gets_all_other_rules(namespace, tmp_path):
    real = shutil.which("iptables-restore", path=iptables.SYSTEM_PATH)
    for variant in firewall.VARIANTS:
        tool = tmp_path / f"iptables{variant}-restore"
        tool.write_text(
            "#!/bin/sh\nrules=$(cat)\n"
            "case $rules in *connlimit*) echo 'RULE_APPEND failed: No such file' >&2; exit 4;; esac\n"
            f'echo "$rules" | {real} "$@"\n'
        )
        tool.chmod(0o755)
    path = f"from tljh_plasma import iptables\niptables.SYSTEM_PATH = '{tmp_path}:' + iptables.SYSTEM_PATH\n"
    done = protect_in(namespace, code=PROTECT.replace("network =", f"{path}network =", 1))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "True iptables"
    assert done.stdout.count("no xt_connlimit") == 1
    assert "-d 10.99.0.1/32 -p tcp -m tcp --dport 15001" in tables_in(namespace)
    assert "connlimit" not in tables_in(namespace)


@pytest.mark.docker
def test_bridge_without_ipv6_needs_no_tables_for_it(namespace, tmp_path):
    off = f"echo 1 >/proc/sys/net/ipv6/conf/{BRIDGE}/disable_ipv6"
    done = protect_in(namespace, "sh", "-c", f'{off} && exec "$@"', "sh")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("True ")
    assert "PLASMA" not in tables_in(namespace, "ip6tables")


@pytest.mark.docker
def test_hub_of_a_developer_goes_on_with_a_warning(namespace):
    """Without root nothing can be closed: said once, and no server is kept from starting."""
    done = protect_in(
        namespace, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", code=PROTECT[: PROTECT.index("print")]
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING") == 1
    assert "does not run as root" in done.stdout
    assert "PLASMA" not in tables_in(namespace)


def test_missing_tools_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(iptables, "SYSTEM_PATH", str(tmp_path))
    monkeypatch.setattr(firewall, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(firewall, "_variants", {})
    with pytest.raises(FirewallError, match=r"'iptables -S' works for root.*iptables-save is not installed"):
        firewall.protect(NETWORK, 15001)
    assert not firewall.is_protected(NETWORK, 15001)


def test_refusing_tools_are_said(tmp_path, monkeypatch):
    for name in ("iptables-save", "iptables-restore"):
        (tmp_path / name).write_text("#!/bin/sh\ncat >/dev/null\necho 'no chain\nby that name' >&2\nexit 2\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "iptables-save").write_text("#!/bin/sh\necho '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]'\n")
    monkeypatch.setattr(iptables, "SYSTEM_PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(firewall, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(firewall, "_variants", {"iptables": ""})
    with pytest.raises(FirewallError, match="iptables-restore: no chain by that name") as caught:
        firewall.protect(NETWORK, 15001)
    assert "\n" not in str(caught.value)


def test_tools_that_write_nothing_are_noticed(tmp_path, monkeypatch):
    """An exit code of 0 is not enough."""
    (tmp_path / "iptables-restore").write_text("#!/bin/sh\ncat >/dev/null\n")
    (tmp_path / "iptables-save").write_text("#!/bin/sh\necho '*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]'\n")
    for tool in tmp_path.iterdir():
        tool.chmod(0o755)
    monkeypatch.setattr(iptables, "SYSTEM_PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(firewall, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(firewall, "_variants", {"iptables": ""})
    with pytest.raises(FirewallError, match="did not write all rules"):
        firewall.protect(NETWORK, 15001)
    assert not firewall.is_protected(NETWORK, 15001)


@pytest.mark.parametrize("setting", ["0", None])
def test_bridges_that_are_not_filtered_are_said(setting, tmp_path, monkeypatch):
    """Some administrators turn that off for virtual machines; containers would then reach one another."""
    switch = tmp_path / "bridge-nf-call-iptables"
    if setting is not None:
        switch.write_text(f"{setting}\n")
    monkeypatch.setattr(firewall, "BRIDGE_FILTER", switch)
    for call in (firewall.protect, firewall.is_protected):
        with pytest.raises(FirewallError, match="net.bridge.bridge-nf-call-iptables=1"):
            call(NETWORK, 15001)


def test_lock_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(firewall, "LOCK", tmp_path / "none" / "lock")
    with pytest.raises(FirewallError, match="make /run writable"):
        firewall.protect(NETWORK, 15001)


def test_lock_is_roots(namespace):
    assert protect_in(namespace).returncode == 0
    status = os.stat(firewall.LOCK)
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
