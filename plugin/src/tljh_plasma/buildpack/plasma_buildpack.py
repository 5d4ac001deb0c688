"""How repositories of Python are built where the server makes its images itself (``plasma.builder.image: local``).

A build pack of repo2docker that runs inside the builder: nothing of the plugin can be imported here. What it leaves is
what repo2docker promises, but JupyterLab is there already, in layers that all environments share, and uv installs the
rest. Dependencies come before the other files of the repository: while they stay the same, the engine has them.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from functools import cached_property, lru_cache
from typing import Any
from unittest import mock

from repo2docker.buildpacks import base
from repo2docker.utils import is_local_pip_requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# As in builds/local.py.
BASE = "localhost/plasma-base:local"
# The builder has the Python of the base: both are made of one root.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Read by builds/cause.py.
OTHER_PYTHON = "runtime.txt asks for Python {}, and the base of this server has {}: conda has to bring it"

TEMPLATE = r"""
FROM {{ base_image }}
ARG NB_USER
ARG NB_UID
ENV USER=${NB_USER} HOME=/home/${NB_USER} PYTHONUNBUFFERED=1
ARG REPO_DIR=${HOME}
ENV REPO_DIR=${REPO_DIR}
ENV PATH=${HOME}/.local/bin:${REPO_DIR}/.local/bin:${PATH}
RUN groupadd --gid ${NB_UID} ${NB_USER} && \
    useradd --comment "Default user" --create-home --gid ${NB_UID} --no-log-init --shell /bin/bash \
        --uid ${NB_UID} ${NB_USER} && \
    install -d -o ${NB_USER} -g ${NB_USER} "${REPO_DIR}" && \
    { [ "$(stat -c %u ${NB_PYTHON_PREFIX})" = "${NB_UID}" ] || chown -R ${NB_UID}:${NB_UID} ${CONDA_DIR}; }
WORKDIR ${REPO_DIR}
COPY python3-login repo2docker-entrypoint /usr/local/bin/
{% for source, target in build_script_files|dictsort -%}
COPY --chown={{ user }}:{{ user }} {{ source }} {{ target }}
{% endfor -%}
EXPOSE 8888
ENTRYPOINT ["/usr/local/bin/repo2docker-entrypoint"]
CMD ["jupyter", "notebook", "--ip", "0.0.0.0"]
{% if start_script is not none -%}
ENV R2D_ENTRYPOINT="{{ start_script }}"
{% endif -%}
{% for step in build_script_directives -%}
{{ step }}
{% endfor -%}
{% for source, target in preassemble_script_files|dictsort -%}
COPY --chown={{ user }}:{{ user }} src/{{ source }} ${REPO_DIR}/{{ target }}
{% endfor -%}
{% for step in preassemble_script_directives -%}
{{ step }}
{% endfor -%}
USER root
COPY --chown={{ user }}:{{ user }} src/ ${REPO_DIR}/
{% for step in assemble_script_directives -%}
{{ step }}
{% endfor -%}
LABEL
{%- for name, value in labels|dictsort %} {{ name }}="
{{- value|replace("\\", "\\\\")|replace('"', '\\"')|replace("$", "\\$") }}"
{%- endfor %}
USER ${NB_USER}
{% for script in post_build_scripts -%}
RUN chmod +x {{ script }} && ./{{ script }}
{% endfor -%}
{% if start_script is not none -%}
RUN chmod +x "{{ start_script }}"
{% endif -%}
{{ appendix }}
"""

_UV = "UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never uv"
_INSTALL = f"{_UV} pip install --python ${{NB_PYTHON_PREFIX}}/bin/python"
_SYNC = (
    f"UV_PROJECT_ENVIRONMENT=${{NB_PYTHON_PREFIX}} {_UV} sync --frozen --inexact --no-editable "
    "--python ${NB_PYTHON_PREFIX}/bin/python"
)
# A lock names the files of the index that it was made with: from another index they come by name, version and hash.
_SYNC_BY_NAME = (
    f"{_UV} export --quiet --frozen --no-emit-workspace --no-header --output-file /tmp/locked.txt && "
    f"{_INSTALL} -r /tmp/locked.txt && rm /tmp/locked.txt"
)
_INCLUDED = re.compile(r"\s*(?:-r|-c|--requirement|--constraint)[\s=]*(\S+)")
_PLAIN = re.compile(r"[\w.][\w./+-]*")


class PlasmaPython(base.BaseImage):
    """Environments of Python on the base of this server."""

    def __init__(self, base_image: str):
        super().__init__(base_image)
        self.base_image = BASE

    @cached_property
    def _runtime(self) -> str:
        return text_of(self.binder_path("runtime.txt")).strip()

    def detect(self) -> bool:
        """Everything that nobody before wanted, but for a Pipfile and another Python: those are repo2docker's."""
        runtime = self._runtime
        wanted = ".".join(runtime.removeprefix("python-").split(".")[:2])
        if runtime and (not runtime.startswith("python-") or wanted not in ("3", PYTHON)):
            if runtime.startswith("python-"):
                self.log.warning(OTHER_PYTHON.format(wanted, PYTHON))
            return False
        return not any(os.path.exists(self.binder_path(name)) for name in ("Pipfile", "Pipfile.lock"))

    def render(self, build_args: dict[str, str] | None = None) -> str:
        """Return the Dockerfile: repo2docker's own way to it, and our template."""
        with mock.patch.object(base, "TEMPLATE", TEMPLATE):
            return super().render(build_args)

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_build_scripts(self) -> list[tuple[str, str]]:
        # apt.txt, which repo2docker installs after it has copied the requirements.
        return super().get_preassemble_scripts()

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_preassemble_script_files(self) -> dict[str, str]:
        return {name: name for name in self._plan[0]}

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_preassemble_scripts(self) -> list[tuple[str, str]]:
        return [("${NB_USER}", command) for command in self._plan[1]]

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_assemble_scripts(self) -> list[tuple[str, str]]:
        return [("${NB_USER}", command) for command in self._plan[2]]

    @cached_property
    def _plan(self) -> tuple[list[str], list[str], list[str]]:
        """What is installed: files that are enough for a part of it, commands for that part, and those after it."""
        files: list[str] = []
        before: list[str] = []
        after: list[str] = []
        project = self._project()
        lock = self.binder_path("uv.lock")
        if project is not None and os.path.exists(lock):
            files += [self.binder_path("pyproject.toml"), lock]
            there = f"cd {self.binder_dir} && " if self.binder_dir else ""
            locked = f"{_SYNC} --no-install-workspace"
            before.append(f'{there}if [ -n "$UV_DEFAULT_INDEX" ]; then {_SYNC_BY_NAME}; else {locked}; fi')
            if self._is_package(project):
                whole = f"{_INSTALL} --no-deps ."
                after.append(f'if [ -n "$UV_DEFAULT_INDEX" ]; then {whole}; else {_SYNC}; fi')
        elif os.path.exists(pylock := self.binder_path("pylock.toml")):
            files.append(pylock)
            before.append(f"{_INSTALL} -r {pylock}")
            if self._is_package(project):
                after.append(f"{_INSTALL} --no-deps .")
        elif project is not None and _is_static(project):
            files.append(self.binder_path("pyproject.toml"))
            before.append(f"{_INSTALL} -r {files[-1]}")
            if self._is_package(project):
                after.append(f"{_INSTALL} --no-deps .")
        elif self._is_package(project):
            after.append(f"{_INSTALL} .")
        elif project and "project" in project:
            after.append(f"{_INSTALL} -r {self.binder_path('pyproject.toml')}")
        requirements = self.binder_path("requirements.txt")
        if os.path.exists(requirements):
            parts = _parts(requirements, [])
            files += parts or []
            # First: a package of the repository may say less than it needs.
            (after if parts is None else before).insert(0, f"{_INSTALL} -r {requirements}")
        return files, before, after

    def _project(self) -> dict[str, Any] | None:
        path = self.binder_path("pyproject.toml")
        if not os.path.exists(path):
            return None
        with open(path, "rb") as file:
            try:
                return tomllib.load(file)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{path} cannot be read: {error}") from error

    def _is_package(self, project: dict[str, Any] | None) -> bool:
        """Whether the repository itself is installed. One with a directory for binder is not, as repo2docker has it."""
        return not self.binder_dir and ("build-system" in (project or {}) or os.path.exists("setup.py"))


def text_of(path: str) -> str:
    """What a file says, in UTF-8 or as editors of Windows write it; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return ""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if wide else "utf-8-sig", "replace")


def _is_static(project: dict[str, Any]) -> bool:
    """Whether pyproject.toml alone says what has to be installed."""
    table = project.get("project")
    if not isinstance(table, dict) or "dependencies" in table.get("dynamic", ()):
        return False
    sources = project.get("tool", {}).get("uv", {}).get("sources", {})
    given = [one for source in sources.values() for one in (source if isinstance(source, list) else [source])]
    return not any({"path", "workspace"} & set(one) for one in given)


def _parts(path: str, seen: list[str]) -> list[str] | None:
    """The files that a list of requirements is made of; None where it needs others of the repository."""
    seen.append(path)
    for line in text_of(path).splitlines():
        if included := _INCLUDED.match(line):
            other = os.path.normpath(os.path.join(os.path.dirname(path), included[1]))
            if "://" in included[1] or other in seen:
                continue
            inside = _PLAIN.fullmatch(other) and not other.startswith("..") and os.path.isfile(other)
            if not inside or _parts(other, seen) is None:
                return None
        elif is_local_pip_requirement(line) or _is_path(line):
            return None
    return seen


def _is_path(line: str) -> bool:
    """Whether a requirement is a directory or a file of the repository that does not begin with a dot."""
    word = line.split("#")[0].split(";")[0].strip()
    return "/" in word and os.path.exists(word)
