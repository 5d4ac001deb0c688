"""Authorities that the server, its hub, builds and servers of users trust."""

from __future__ import annotations

from salt.exceptions import CommandExecutionError

import plasma_trust


def authorities(name, certificates=None):
    """
    The system trusts these authorities beside its own, and none that was named here before and is not any more.

    name
        Any description.
    certificates
        In PEM, a list with one each.

    .. code-block:: yaml

        trust-authorities:
          plasma_trust.authorities:
            - certificates: ["-----BEGIN CERTIFICATE-----..."]
    """
    ret = {"name": name, "changes": {}, "result": True, "comment": "These authorities are trusted, and no others."}
    certificates = certificates or []
    try:
        # Salt shows and counts an empty list as a warning.
        if warnings := plasma_trust.warnings(certificates):
            ret["warnings"] = warnings
        ret["changes"] = plasma_trust.compare(certificates)
        if ret["changes"] and __opts__["test"]:
            ret.update(result=None, comment="What is trusted would be changed.")
        elif ret["changes"]:
            plasma_trust.apply(certificates)
            ret["comment"] = "What is trusted was changed."
    except CommandExecutionError as exc:
        ret.update(result=False, changes={}, comment=str(exc))
    return ret
