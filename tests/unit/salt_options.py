"""Options of a masterless minion for Salt's own loader and compiler, in the test's process."""

from __future__ import annotations

import copy
import pathlib

import salt.config
from salt._logging import shutdown_temp_handler

# Salt keeps early log messages for a console it expects to set up later; at exit they would be written to the
# stream pytest captured, which is closed by then.
shutdown_temp_handler()


def minion_options(directory: pathlib.Path, **options) -> dict:
    """
    The options, with every path of the minion below ``directory``.

    options
        Options to set or to replace; lists of paths are written as Salt wants them.
    """
    opts = copy.deepcopy(salt.config.DEFAULT_MINION_OPTS)
    opts.update(
        conf_file="",
        id="test-server",
        file_client="local",
        root_dir=str(directory),
        cachedir=str(directory / "cache"),
        pki_dir=str(directory / "pki"),
        sock_dir=str(directory / "run"),
        extension_modules=str(directory / "extmods"),
        file_roots={"base": []},
        pillar_roots={"base": []},
        grains={"os": "Debian", "os_family": "Debian", "kernel": "Linux", "osarch": "amd64"},
    )
    for key, value in options.items():
        opts[key] = [str(item) for item in value] if isinstance(value, list) and key.endswith("_dirs") else value
    return opts
