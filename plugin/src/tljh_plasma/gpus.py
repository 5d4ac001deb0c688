"""GPUs of servers: which this machine has, which are taken, and which a new server gets.

Nothing of it is kept anywhere. What there is the kernel's driver says, and what is taken the containers that run say in
their requests for devices: a hub that starts anew, and a container that somebody started by hand, are no special cases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import NotFound
from docker.types import DeviceRequest

from . import policy
from .planning import StartFailure

# One directory for each GPU, named by its place on the bus. No device is opened: the hub sees none (PrivateDevices=).
DRIVER_FILES = Path("/proc/driver/nvidia/gpus")
# Of the engine: the runtime that brings the driver's files into a container, and the driver of requests for devices.
RUNTIME = DRIVER = "nvidia"
# What images ask that runtime for; those of CUDA want all there are.
VARIABLE = "NVIDIA_VISIBLE_DEVICES"
NOTHING = "void"

NONE_HERE = (
    "This environment needs a GPU, and the server has none to give. "
    "Please choose another environment, and tell the administrator of the hub."
)
TOO_MANY = (
    "This environment needs {wanted} GPUs, and the server has {there} to give. "
    "Please choose another environment, and tell the administrator of the hub."
)
NONE_FREE = (
    "There are not enough free GPUs at the moment: this environment needs {wanted}, and {free} of {there} are free. "
    "{advice}, or choose an environment without a GPU."
)
OWN = "Stop your {server}, which has one, and try again"
OTHERS = "Try again when somebody has stopped a server (those that nobody uses are stopped after a while)"


@dataclass(frozen=True)
class Gpu:
    """A GPU: its number, as ``nvidia-smi`` and the engine count, and its UUID where the driver says it already."""

    number: str
    uuid: str = ""


def present() -> list[Gpu]:
    """Return the GPUs of this machine that its driver knows, by number: in the order of their places on the bus."""
    try:
        places = sorted(place for place in DRIVER_FILES.iterdir() if place.is_dir())
    except OSError:
        return []
    told = [_told(place / "information") for place in places]
    # Those that the operator told the driver to leave alone have no number.
    known = [lines for lines in told if lines.get("GPU Excluded", "No") == "No"]
    return [Gpu(str(number), lines.get("GPU UUID", "")) for number, lines in enumerate(known)]


def _told(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def for_servers(reserved: Collection[int] = ()) -> list[Gpu]:
    """Return the GPUs that servers may get: all but the reserved ones."""
    return [gpu for gpu in present() if int(gpu.number) not in reserved]


def requested(host_config: Mapping[str, Any], gpus: Iterable[Gpu]) -> set[str]:
    """Return the numbers of the GPUs that a container has.

    Args:
        host_config: of the container, as the engine describes it.
        gpus: all of this machine.
    """
    gpus = list(gpus)
    found: set[str] = set()
    for request in host_config.get("DeviceRequests") or []:
        kinds = {kind for kinds in request.get("Capabilities") or [] for kind in kinds}
        # A name of CDI is nvidia.com/gpu=0, and a part of a GPU 0:1 (MIG): all of that one counts.
        names = [name.rpartition("=")[2].partition(":")[0] for name in request.get("DeviceIDs") or []]
        if request.get("Driver") not in (DRIVER, "cdi") and not kinds & {"gpu", DRIVER}:
            continue
        count = request.get("Count") or 0
        if "all" in names or (not names and count < 0):
            return {gpu.number for gpu in gpus}
        found |= {gpu.number for gpu in (gpus[:count] if not names else ())}
        found |= {gpu.number for gpu in gpus for name in names if _is(gpu, name)}
    return found


def _is(gpu: Gpu, name: str) -> bool:
    return name == gpu.number or (name.startswith("GPU-") and gpu.uuid.startswith(name))


def taken(client: Any) -> dict[str, dict[str, str]]:
    """Return which GPUs are taken: by number, the labels of the container that has it.

    Args:
        client: a docker-py API client.
    """
    gpus = present()
    found: dict[str, dict[str, str]] = {}
    # Of all that run: also those that no hub started.
    for container in client.containers():
        try:
            described = client.inspect_container(container["Id"])
        except NotFound:
            continue
        labels = described["Config"].get("Labels") or {}
        found |= dict.fromkeys(requested(described["HostConfig"], gpus), labels)
    return found


def choose(client: Any, wanted: int, reserved: Collection[int], person: str) -> list[str]:
    """Return the numbers of GPUs that nobody has. Whoever asks has to keep others from asking until they are taken.

    Args:
        client: a docker-py API client.
        wanted: how many.
        reserved: numbers of those that no server gets.
        person: for whom.

    Raises:
        StartFailure: there are not so many, or others have them.
    """
    there = for_servers(reserved)
    if not there:
        raise StartFailure(503, NONE_HERE, f"{DRIVER_FILES} shows no GPU that is not reserved: is the driver loaded?")
    if wanted > len(there):
        message = TOO_MANY.format(wanted=wanted, there=len(there))
        raise StartFailure(503, message, f"{wanted} GPUs wanted, {len(there)} here")
    holders = taken(client)
    free = [gpu.number for gpu in there if gpu.number not in holders]
    if len(free) >= wanted:
        return free[:wanted]
    own = [labels.get(policy.LABEL_SERVER) for labels in holders.values() if labels.get(policy.LABEL_USER) == person]
    advice = OWN.format(server=f"server {own[0]}" if own[0] else "server") if own else OTHERS
    message = NONE_FREE.format(wanted=wanted, free=len(free), there=len(there), advice=advice)
    who = ", ".join(sorted({labels.get(policy.LABEL_USER) or "no server of the hub" for labels in holders.values()}))
    raise StartFailure(503, message, f"{wanted} GPUs wanted, {len(free)} of {len(there)} free; used by: {who}")


def host_config(numbers: list[str]) -> dict[str, Any]:
    """Return what the engine is asked for, as docker-py's arguments of ``create_host_config``."""
    request = DeviceRequest(driver=DRIVER, device_ids=numbers, capabilities=[["gpu"]])
    return {"runtime": RUNTIME, "device_requests": [request]}
