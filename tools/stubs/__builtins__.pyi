# What Salt's loader puts into modules, for the type checker.
from collections.abc import Callable
from typing import Any

__salt__: dict[str, Callable[..., Any]]
__states__: dict[str, Callable[..., Any]]
__opts__: dict[str, Any]
__grains__: dict[str, Any]
__pillar__: dict[str, Any]
__context__: dict[str, Any]
__lowstate__: list[dict[str, Any]]
__running__: dict[str, Any]
__proxy__: dict[str, Any]

# What JupyterHub puts into its configuration files.
def get_config() -> Any: ...
def load_subconfig(path: str) -> None: ...
