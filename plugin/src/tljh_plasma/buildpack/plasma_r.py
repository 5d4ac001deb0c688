"""How repositories of R are built there: R and its packages are those of the server's distribution, ready-made.

A repository that wants R of a day, a DESCRIPTION or conda is repo2docker's, as before.
"""

from __future__ import annotations

import os
import re
from functools import cached_property, lru_cache

from .install_script import packages
from .plasma_buildpack import PlasmaPython, text_of

# Read by builds/cause.py.
OTHER_R = "runtime.txt asks for R of a day ({}), which comes from elsewhere than the distribution of this server"

_RUNTIME = re.compile(r"r(?:-\d+\.\d+(?:\.\d+)?)?")
_IN_APT = re.compile(r"^\s*r-(?:base|cran|bioc|recommended)\b", re.MULTILINE)
# Where install.R (ours) is for a repository's.
_PROFILE = "/usr/local/lib/plasma/install.R"
# Without its mirror, apt would say that it knows no package.
_APT = (
    "apt-get -qq -o APT::Update::Error-Mode=any update && \\\n{} && \\\n"
    "apt-get -qq clean && \\\nrm -rf /var/lib/apt/lists/*"
)
# Servers of users have a library in the home.
_HOME = (
    'if (nzchar(Sys.getenv("JUPYTERHUB_USER"))) local({ own <- path.expand(Sys.getenv("R_LIBS_USER")); '
    "dir.create(own, showWarnings = FALSE, recursive = TRUE); .libPaths(c(own, .libPaths())) })"
)
_STEP = _APT.format(
    "apt-get install --yes --no-install-recommends r-base-core r-recommended r-cran-irkernel && \\\n"
    "apt-cache pkgnames r- >/usr/local/lib/plasma/r-packages && \\\n"
    f"printf '%s\\n' '{_HOME}' >>/etc/R/Rprofile.site && \\\n"
    # For what install.R and postBuild install beside them.
    "chown ${NB_UID}:${NB_UID} /usr/local/lib/R/site-library"
)
_KERNEL = """Rscript -e 'IRkernel::installspec(prefix = Sys.getenv("NB_PYTHON_PREFIX"))'"""
_VERSION = """Rscript -e 'if (!startsWith(paste0(getRversion(), "."), "{0}.")) stop("runtime.txt asks for R {0}, and \
the distribution of this server has R ", getRversion(), ": write r, or a day (r-{0}-2025-06-01) for R from elsewhere", \
call. = FALSE)'"""
_PACKAGES = _APT.format(
    "apt-cache show --no-all-versions {} 2>/dev/null | sed -n 's/^Package: //p' | sort -u | \\\n"
    "    xargs --no-run-if-empty apt-get install --yes --no-install-recommends"
)


class PlasmaR(PlasmaPython):
    """Environments of R on the same base: R and its packages are those of the distribution."""

    def detect(self) -> bool:
        """With install.R or packages of R in apt.txt, or where runtime.txt says so, without a day."""
        runtime = self._runtime
        if runtime.startswith("r-") and not _RUNTIME.fullmatch(runtime):
            self.log.warning(OTHER_R.format(runtime))
        others = (self.binder_path("environment.yml"), *(() if self.binder_dir else ("DESCRIPTION",)))
        if any(os.path.exists(path) for path in others):
            return False
        if _RUNTIME.fullmatch(runtime):
            return True
        found = os.path.exists(self.binder_path("install.R")) or _IN_APT.search(text_of(self.binder_path("apt.txt")))
        return bool(found) and super().detect()

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_build_script_files(self) -> dict[str, str]:
        return {os.path.join(os.path.dirname(__file__), "install.R"): _PROFILE}

    @lru_cache  # noqa: B019 (there is one of these, and the process ends with it)
    def get_build_scripts(self) -> list[tuple[str, str]]:
        """R itself comes first: whatever else changes, a new build of an environment has it."""
        runtime = self._runtime.removeprefix("r").strip("-")
        steps = [("root", _STEP), ("${NB_USER}", _KERNEL)]
        steps += [("${NB_USER}", _VERSION.format(runtime))] if runtime[:1].isdigit() else []
        steps += super().get_build_scripts()
        named = [f"r-{kind}-{name.lower()}" for name in packages(text_of(self._install)) for kind in ("cran", "bioc")]
        return steps + ([("root", _PACKAGES.format(" ".join(named)))] if named else [])

    @cached_property
    def _install(self) -> str:
        return self.binder_path("install.R")

    @cached_property
    def _plan(self) -> tuple[list[str], list[str], list[str]]:
        """As repo2docker runs install.R: before the other files are there, and once more where it needs them."""
        files, before, after = super()._plan
        if os.path.exists(self._install):
            run = f"R_PROFILE_USER={_PROFILE} Rscript {self._install}"
            files = [*files, self._install]
            before = [*before, f"{run} && touch /tmp/.preassembled || true"]
            after = [*after, f"test -f /tmp/.preassembled || {run}"]
        return files, before, after
