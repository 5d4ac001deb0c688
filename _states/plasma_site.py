"""
The end of the site: the record of the last complete apply, with which ``plasma.status`` tells what is pending, and what
earlier releases left.
"""

from __future__ import annotations

from collections.abc import Mapping

import plasma_salt_directory
import plasma_site_record


def applied(name):
    """
    Put on record that the site was applied, for ``plasma.status``. It is the last state of the site: where one before
    it failed, or where none ran, nothing is recorded. The time alone is no change.

    name
        The ID is enough.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": ""}
    # What Salt has seen of the run so far, frozen.
    others = [state for state in __running__.values() if isinstance(state, Mapping)]
    if not others:
        ret["comment"] = "Nothing is recorded: this is the end of the whole site, `state.apply` without a name."
        return ret
    if any(state.get("result") is False for state in others):
        ret["comment"] = "Nothing is recorded: a state before this one failed."
        return ret
    try:
        sections = plasma_site_record.digests(__pillar__.get("plasma"))
        ret["changes"] = plasma_site_record.compare(sections)
        if __opts__["test"]:
            ret["comment"] = "The settings are those on record."
            if ret["changes"]:
                ret.update(result=None, comment=f"These settings would be on record: {', '.join(ret['changes'])}.")
            return ret
        plasma_site_record.write(sections)
    except OSError as exc:
        ret.update(result=False, changes={}, comment=f"{exc.filename} cannot be written: {exc.strerror}.")
        return ret
    ret["comment"] = "The settings of this apply are on record."
    return ret


def forgotten(name):
    """
    Remove the record of the last complete apply.

    name
        The ID is enough.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "There is no record of an apply."}
    if not plasma_site_record.record():
        return ret
    ret["changes"] = {"record": {"old": "present", "new": None}}
    if __opts__["test"]:
        ret.update(result=None, comment="The record of the last apply would be removed.")
        return ret
    plasma_site_record.forget()
    ret["comment"] = "The record of the last apply is removed."
    return ret


def tidied(name):
    """
    What salt-ssh had below ``/var/tmp`` with earlier releases is removed, see ``plasma_salt_directory``.

    name
        The ID is enough.
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "Nothing of an earlier release is left."}
    path = plasma_salt_directory.left_behind(__opts__.get("conf_file"))
    if not path:
        return ret
    ret["changes"] = {path: {"old": "Salt, of an earlier release", "new": None}}
    if __opts__["test"]:
        ret.update(result=None, comment=f"{path} would be removed.")
        return ret
    try:
        plasma_salt_directory.remove(__opts__.get("conf_file"))
    except OSError as exc:
        ret.update(result=False, changes={}, comment=f"{exc.filename} cannot be removed: {exc.strerror}.")
        return ret
    ret["comment"] = f"{path} is removed: Salt is below /var/lib now."
    return ret
