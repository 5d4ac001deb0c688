"""
The packages of the hub's environment: the whole lock by uv, single ones by pip.

uv, with what it takes to be fetched, needs a third of pip's processor time for the lock. It reads nothing of pip's
configuration, so that what says there where packages come from is translated; whatever uv cannot do, pip does.
"""

from __future__ import annotations

import ast
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping

from salt.exceptions import CommandExecutionError

import plasma_run

# pip's options, as `pip config list` names them, and the variables that tell uv the same.
_TRANSLATED = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "no-index": ("UV_NO_INDEX",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "cert": ("SSL_CERT_FILE",),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
}
# They say nothing about where packages come from.
_IGNORED = {
    "break-system-packages",
    "cache-dir",
    "disable-pip-version-check",
    "no-cache-dir",
    "no-color",
    "no-input",
    "progress-bar",
    "retries",
    "root-user-action",
}
_OPTION = re.compile(r"(?:global|install|:env:)\.([a-z-]+)=(.+)")


def pip(paths: Mapping[str, pathlib.Path], *arguments: object) -> list[str]:
    """The command that installs with the environment's pip."""
    return [str(paths["python"]), "-m", "pip", "install", *map(str, arguments)]


def constraints(paths: Mapping[str, pathlib.Path]) -> pathlib.Path:
    """Write the locks as pip constraints, without hashes: one hash would make pip ask for all of them."""
    pins = {}
    for lock in (paths["lock"], paths["tljh_pins"]):
        for line in lock.read_text(encoding="utf-8").splitlines():
            requirement = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?(==[^\\]*)", line)
            if requirement:
                pins["".join(requirement.groups()).strip()] = None
    paths["constraints"].write_text("\n".join(pins) + "\n", encoding="utf-8")
    return paths["constraints"]


def install_lock(paths: Mapping[str, pathlib.Path], run: Callable[..., None], environment: Mapping[str, str]) -> None:
    """
    Bring every package of the lock, which is complete and hashed, so that there is nothing to resolve.

    paths
        See ``plasma_hub_installed.paths``.
    run
        Runs a command, given its title, itself and further variables.
    environment
        The variables that ``run`` starts from, which pip's options may be among.

    Raises ``CommandExecutionError`` when pip, the last to try, fails.
    """
    whole = ("--require-hashes", "--no-deps", "--requirement")
    settings = _uv_settings(paths, environment)
    uv = single(paths, "uv")
    if settings is not None and uv:
        run("Installing what installs the hub's packages", pip(paths, *whole, uv))
        cache = paths["ours"] / "uv-cache"
        command = [str(paths["hub"] / "bin" / "uv"), "pip", "install", "--python", str(paths["python"])]
        try:
            # Compiled now, as pip does it: the hub's first start would otherwise compile everything.
            run(
                "Installing the hub's packages",
                [*command, "--compile-bytecode", *whole, str(paths["lock"])],
                UV_CACHE_DIR=str(cache),
                UV_NO_PROGRESS="1",
                **settings,
            )
        except CommandExecutionError:
            # It may be a mirror or a proxy that only pip gets along with: what it says counts.
            pass
        else:
            return
        finally:
            shutil.rmtree(cache, ignore_errors=True)
    run("Installing the hub's packages with pip", pip(paths, *whole, paths["lock"]))


def single(paths: Mapping[str, pathlib.Path], name: str) -> pathlib.Path | None:
    """Write a requirements file with this package alone, as the lock has it, hashes included; None when it has none."""
    text = paths["lock"].read_text(encoding="utf-8")
    entries = re.findall(rf"^{re.escape(name)}==(?:.*\\\n)*.*$", text, re.MULTILINE)
    if not entries:
        return None
    requirement = paths["ours"] / f"{name}.txt"
    requirement.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return requirement


def _uv_settings(paths, environment) -> dict[str, str] | None:
    """What pip is told about indexes, proxies and authorities, as variables for uv; None for what uv does not know."""
    listing = plasma_run.run([str(paths["python"]), "-m", "pip", "config", "list"], env=environment, timeout=60)
    if listing.returncode:
        return None
    # Indexes are equals to pip; the hashes say which file is meant.
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for option, literal in _OPTION.findall(listing.stdout):
        if option in _TRANSLATED:
            between = "," if option == "find-links" else " "
            value = between.join(str(ast.literal_eval(literal)).split())
            settings.update(dict.fromkeys(_TRANSLATED[option], value))
        elif option not in _IGNORED:
            return None
    return settings
