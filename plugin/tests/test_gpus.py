"""GPUs: how many there are, who has them, and that no two servers that run have the same one."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import docker
import pytest
from tljh_plasma import failures, gpus, policy
from tljh_plasma.environments import Environment
from tljh_plasma.gpus import Gpu
from tljh_plasma.planning import PlannedSpawner, StartFailure
from tljh_plasma.spawner import PlasmaSpawner

UUIDS = ("GPU-0a1b2c3d-0000-1111-2222-333344445555", "GPU-????????-????-????-????-????????????")
TWO = [Gpu("0", UUIDS[0]), Gpu("1", UUIDS[1])]


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Makes the files of the driver, for so many GPUs."""
    directory = tmp_path / "gpus"
    monkeypatch.setattr(gpus, "DRIVER_FILES", directory)

    def made(*lines):
        for number, line in enumerate(lines):
            place = directory / f"0000:{17 + number:02x}:00.0"
            place.mkdir(parents=True)
            (place / "information").write_text(f"Model: \t\t NVIDIA A100\nIRQ:   \t\t 1{number}\n{line}\n")

    return made


class Engine:
    """The containers that run, by id: what they asked for. ``client`` is what docker-py has of it."""

    def __init__(self):
        self.running: dict[str, tuple[dict, dict]] = {}
        self.gone: set[str] = set()

    def add(self, name, *requests, **labels):
        labels = {f"org.plasma.{key}": value for key, value in labels.items()}
        self.running[name] = ({"DeviceRequests": list(requests) or None}, labels)

    def containers(self):
        return [{"Id": name} for name in self.running]

    def inspect_container(self, name):
        if name in self.gone:
            raise docker.errors.NotFound("gone")
        host_config, labels = self.running[name]
        return {"HostConfig": host_config, "Config": {"Labels": labels}}


@pytest.fixture
def engine():
    return Engine()


def asked(*ids, driver="nvidia", count=0, kinds=("gpu",)):
    return {"Driver": driver, "Count": count, "DeviceIDs": list(ids) or None, "Capabilities": [list(kinds)]}


def test_the_driver_says_what_there_is(driver):
    assert gpus.present() == []
    driver(f"GPU UUID: \t {UUIDS[0]}", f"GPU UUID: \t {UUIDS[1]}\nGPU Excluded:\t No")
    assert gpus.present() == TWO
    assert gpus.for_servers([0]) == TWO[1:]


def test_what_the_driver_leaves_alone_has_no_number(driver):
    driver(f"GPU UUID: {UUIDS[0]}\nGPU Excluded: Yes", f"GPU UUID: {UUIDS[1]}")
    assert gpus.present() == [Gpu("0", UUIDS[1])]


@pytest.mark.parametrize(
    ("request_", "numbers"),
    [
        (asked("1"), {"1"}),
        (asked("0", "1"), {"0", "1"}),
        (asked(UUIDS[0]), {"0"}),
        (asked("GPU-0a1b2c3d"), {"0"}),
        # As `docker run --gpus all`, `--gpus 1` and `--device nvidia.com/gpu=...` ask.
        (asked(driver="", count=-1), {"0", "1"}),
        (asked(driver="", count=1), {"0"}),
        (asked("nvidia.com/gpu=1", driver="cdi", kinds=()), {"1"}),
        (asked("nvidia.com/gpu=all", driver="cdi", kinds=()), {"0", "1"}),
        # A part of a GPU.
        (asked("0:1"), {"0"}),
        (asked("7"), set()),
        (asked("1", driver="tpu", kinds=("tpu",)), set()),
        (asked(), set()),
    ],
)
def test_what_a_container_has_is_read_from_its_requests(request_, numbers):
    assert gpus.requested({"DeviceRequests": [request_]}, TWO) == numbers


def test_what_others_have_is_taken_and_a_container_that_ends_meanwhile_has_nothing(driver, engine):
    driver("", "")
    engine.add("a", asked("1"), user="ada")
    engine.add("b", asked("0"))
    engine.add("c")
    engine.gone = {"b"}
    assert gpus.taken(engine) == {"1": {"org.plasma.user": "ada"}}
    assert gpus.choose(engine, 1, [], "bob") == ["0"]


def refusal(engine, wanted=1, reserved=(), person="bob"):
    with pytest.raises(StartFailure) as caught:
        gpus.choose(engine, wanted, reserved, person)
    assert caught.value.status == 503
    return caught.value


def test_a_server_without_gpus_says_so(driver, engine):
    assert "the server has none to give" in refusal(engine).message
    driver("")
    assert gpus.choose(engine, 1, [], "bob") == ["0"]
    # All that there are may be reserved.
    assert "the server has none to give" in refusal(engine, reserved=[0]).message
    assert "needs 2 GPUs, and the server has 1 to give" in refusal(engine, wanted=2).message


def test_when_all_are_taken_people_are_told_what_to_do(driver, engine):
    driver("", "")
    engine.add("a", asked("0"), user="ada", server="")
    engine.add("b", asked("1"))
    told = refusal(engine)
    assert told.message == (
        "There are not enough free GPUs at the moment: this environment needs 1, and 0 of 2 are free. Try again when "
        "somebody has stopped a server (those that nobody uses are stopped after a while), or choose an environment "
        "without a GPU."
    )
    # Who has them is for the log alone.
    assert told.reason == "1 GPUs wanted, 0 of 2 free; used by: ada, no server of the hub"
    assert "Stop your server, which has one, and try again, or" in refusal(engine, person="ada").message
    engine.add("a", asked("0"), user="ada", server="second")
    assert "Stop your server second, which has one" in refusal(engine, person="ada").message
    assert "needs 2, and 1 of 2 are free" in refusal(engine_without(engine, "b"), wanted=2).message


def engine_without(engine, name):
    del engine.running[name]
    return engine


# The spawner, in front of that engine.


class DockerPart:
    """What stands in for DockerSpawner's part: making a container takes a moment, and then it runs."""

    mem_limit = cpu_limit = None

    async def start(self):
        await asyncio.sleep(0.02)
        requests = self.extra_host_config.get("device_requests") or []
        labels = self.extra_create_kwargs["labels"]
        self.engine.running[self.name] = ({"DeviceRequests": [dict(one) for one in requests]}, labels)
        self.made = self.extra_host_config
        return ("10.0.0.2", 8888)


class Spawner(PlannedSpawner, DockerPart):
    """One server of an environment with so many GPUs."""

    _run_container = PlasmaSpawner._run_container
    _run_with_gpus = PlasmaSpawner._run_with_gpus
    _gpu_turn = None
    reserved_gpus = []
    _safe = False

    def __init__(self, engine, name, wanted):
        super().__init__()
        self.engine, self.name, self._log_name, self.told = engine, name, name, {}
        self.log = logging.getLogger("gpus")
        self.object_id = name
        environment = Environment(image="c:1", image_id="x", name="C", directory="c", gpus=wanted)
        self.plan = SimpleNamespace(environment=environment, account=SimpleNamespace(name=name), missing=())

    async def in_thread(self, function, *arguments):
        if function.__module__ != "tljh_plasma.gpus":
            return ""
        return await asyncio.to_thread(function, self.engine, *arguments)

    async def _prepare(self):
        self.extra_host_config = {"cap_drop": ["ALL"]}
        self.extra_create_kwargs = {"labels": {policy.LABEL_USER: self.name}}

    async def _wait_until_it_answers(self, ip, port):
        pass


def starts(engine, wanted, names):
    """Start servers at the same moment; returns what each has, or its refusal."""

    async def all_of_them():
        Spawner._gpu_turn = asyncio.Lock()
        spawners = [Spawner(engine, name, wanted) for name in names]
        ends = await asyncio.gather(*(one._run_container() for one in spawners), return_exceptions=True)
        return {
            one.name: end if isinstance(end, Exception) else one.made for one, end in zip(spawners, ends, strict=True)
        }

    return asyncio.run(all_of_them())


def test_servers_that_start_at_the_same_moment_get_different_ones(driver, engine):
    driver("", "", "")
    engine.add("by-hand", asked("1"))
    found = starts(engine, 1, ["ada", "bob", "eve"])
    refused = [end for end in found.values() if isinstance(end, StartFailure)]
    assert len(refused) == 1
    got = [end["device_requests"][0] for end in found.values() if not isinstance(end, StartFailure)]
    assert sorted(one["DeviceIDs"] for one in got) == [["0"], ["2"]]
    assert {(one["Driver"], one["Count"], str(one["Capabilities"])) for one in got} == {("nvidia", 0, "[['gpu']]")}
    assert {labels.get(policy.LABEL_GPUS) for _, labels in engine.running.values()} == {None, "0", "2"}
    # Nothing of it is remembered: what runs decides, and the next start is one of a hub that knows nothing yet.
    engine.running.pop(next(name for name in ("ada", "bob", "eve") if name in engine.running))
    (again,) = starts(engine, 1, ["mallory"]).values()
    assert again["runtime"] == "nvidia"
    held = [host["DeviceRequests"][0]["DeviceIDs"] for host, _ in engine.running.values()]
    assert sorted(held) == [["0"], ["1"], ["2"]]


def test_a_server_without_gpus_asks_for_no_device(driver, engine):
    driver("")
    (made,) = starts(engine, 0, ["ada"]).values()
    assert made == {"cap_drop": ["ALL"]}
    assert engine.running["ada"][1] == {policy.LABEL_USER: "ada"}


@pytest.mark.parametrize(
    "text",
    [
        'could not select device driver "nvidia" with capabilities: [[gpu]]',
        "unknown or invalid runtime name: nvidia",
        "Unknown runtime specified nvidia",
        "OCI runtime create failed: nvidia-container-cli: initialization error: nvml error: driver not loaded",
    ],
)
def test_an_engine_that_can_give_none_is_the_administrators_business(text):
    told = failures.of_docker(docker.errors.APIError(text))
    assert told.status == 503
    assert "Docker cannot give it a GPU" in told.message
    assert "state.apply gpu" in told.reason
