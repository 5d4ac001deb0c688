"""Links from an environment to its source."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

# What stands between repository and reference in the address of a page, by what the name of the host holds.
# "HOST/REPOSITORY/src/REF" is also how the older releases of Gitea and Forgejo link.
FORGES = (("gitlab", "/-/tree/"), ("github", "/tree/"), ("bitbucket", "/src/"), ("codeberg", "/src/"))
MORE_FORGES = (("gitea", "/src/"), ("forgejo", "/src/"))


def source_url(repo: str, ref: str) -> str:
    """Return the address of the page that shows what an environment was built from.

    Args:
        repo: URL of the repository, as the label of an image has it: anything.
        ref: the reference.

    Returns:
        An http(s) URL without credentials, of the reference where the forge is known and of the repository
        otherwise; empty when browsers cannot show it.
    """
    try:
        parts = urlsplit(repo)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    if ":" in host:
        host = f"[{host}]"
    path = parts.path.rstrip("/").removesuffix(".git")
    address = f"{parts.scheme}://{host}{f':{port}' if port else ''}{quote(path, safe='/%~+@:,=')}"
    if not ref or ref == "HEAD":
        return address
    for word, between in FORGES + MORE_FORGES:
        if word in host:
            return f"{address}{between}{quote(ref, safe='/')}"
    return address
