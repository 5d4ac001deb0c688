"""
Section about GPUs: what gives them to servers, and which stay out of it.
"""

from __future__ import annotations

from . import server_rules
from .base import Section, hub_option, number, option
from .rules import BaseUrl, Sha256, Source

GpuNumber = number(server_rules.GPU_NUMBER)


class GpuRepository(Section):
    url: BaseUrl = option(
        "https://nvidia.github.io/libnvidia-container/stable/deb", example="https://mirror.example.org/nvidia/deb"
    )
    """The package repository, without the name of the architecture."""
    key_url: Source = option(
        "https://nvidia.github.io/libnvidia-container/gpgkey", example="https://mirror.example.org/nvidia/gpgkey"
    )
    """The key that signs the repository. Salt downloads it, without a proxy: see `plasma.hub.sources.http_proxy`."""
    key_sha256: Sha256 = option(
        "c880576d6cf75a48e5027a871bac70fd0421ab07d2b55f30877b21f1c87959c9",
        example="c880576d6cf75a48e5027a871bac70fd0421ab07d2b55f30877b21f1c87959c9",
    )
    """Checksum of that key."""


class Gpu(Section):
    enabled: bool = option(False, example=True)
    """Whether the engine can give GPUs of NVIDIA to servers: its container toolkit is installed, and the engine knows
    it. The driver of the GPUs is installed by the operator. `gpus` of an environment says how many its servers get."""
    repository: GpuRepository = option(GpuRepository, example={"url": "https://mirror.example.org/nvidia/deb"})
    """The repository of the container toolkit."""
    reserved: list[GpuNumber] = hub_option("gpu_reserved", example=[0])
    """Numbers of GPUs that no server gets, as `nvidia-smi` prints them: for a screen, or for programs of the
    operator's."""
