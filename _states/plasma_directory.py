"""A directory of people that this server asks, with sssd."""

from __future__ import annotations

from typing import Any

from salt.exceptions import CommandExecutionError

import plasma_directory_conf as conf
import plasma_directory_sssd


def joined(name: str, directory: dict[str, Any], home_path: str = "/home") -> dict[str, Any]:
    """
    This server asks a directory who its people are, and lets them log in.

    name
        Any description.
    directory
        The section ``plasma.directory`` of the completed pillar. The passwords are read from pillar
        (``plasma:directory_secrets``, which the completed pillar has beside it): what is an argument of a state is
        shown by Salt.
    home_path
        Where homes are made.

    What is wrong is said before anything is changed. Where the directory is not reached in the end, sssd goes on with
    what it had before.

    .. code-block:: yaml

        directory-joined:
          plasma_directory.joined:
            - directory:
                kind: ldap
                domain: example.org
                servers: [ldaps://ldap.example.org]
                base: dc=example,dc=org
    """
    ret: dict[str, Any] = {"name": name, "changes": {}, "result": True, "comment": f"{directory['domain']} is asked."}
    try:
        wanted = _wanted(directory, home_path)
        changes = plasma_directory_sssd.compare(wanted)
        if not changes:
            return ret
        # What the system is going to trust by the same run: a dry run comes before that.
        trusted = (__pillar__.get("plasma") or {}).get("trust") or []
        problems = plasma_directory_sssd.problems(wanted, changes, trusted)
        if problems:
            lines = ["Nothing was changed. The directory cannot be asked:", *(f"- {problem}." for problem in problems)]
            return {**ret, "result": False, "comment": "\n".join(lines)}
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": f"{directory['domain']} would be asked."}
        changes = plasma_directory_sssd.apply(wanted)
    except (CommandExecutionError, OSError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "changes": changes, "comment": f"{directory['domain']} is asked now."}


def disabled(name: str) -> dict[str, Any]:
    """
    This server asks no directory that it was joined to here; others are left alone. Homes of its people stay.

    name
        Any description.

    .. code-block:: yaml

        directory-disabled:
          plasma_directory.disabled: []
    """
    ret: dict[str, Any] = {"name": name, "changes": {}, "result": True, "comment": "No directory was joined from here."}
    try:
        changes = plasma_directory_sssd.compare_removed()
        if not changes:
            return ret
        if __opts__["test"]:
            return {**ret, "result": None, "changes": changes, "comment": "The directory would not be asked any more."}
        comment = "The directory is not asked any more; homes of its people stay."
        if plasma_directory_sssd.foreign():
            comment = f"{conf.SSSD} is not from here: it stays, and so does sssd. What came beside it is gone."
        changes = plasma_directory_sssd.remove()
    except (CommandExecutionError, OSError) as exc:
        return {**ret, "result": False, "comment": str(exc)}
    return {**ret, "changes": changes, "comment": comment}


def _wanted(directory: dict[str, Any], home_path: str) -> conf.Wanted:
    values, secrets = dict(directory), (__pillar__.get("plasma") or {}).get("directory_secrets") or {}
    ca, source = values.get("ca"), None
    if ca and ca.startswith("salt://"):
        source = __salt__["cp.cache_file"](ca)
        if not source:
            raise CommandExecutionError(
                f"plasma.directory.ca: there is no {ca}: put the file into the folder salt/ of the repository."
            )
        values["ca"] = conf.CA
    for key in ("servers", "groups"):
        values[key] = tuple(values.get(key) or ())
    return conf.Wanted(**values, ca_source=source, home_path=home_path, secrets=dict(secrets))
