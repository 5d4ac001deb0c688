"""
A page to print and cut: one card for each new account.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Accounts</title>
<style>
  body {{ margin: 1rem; font: 11pt/1.5 sans-serif; color: #000; background: #fff; }}
  main {{ display: grid; grid-template-columns: 1fr 1fr; }}
  section {{ padding: 6mm; border: 1px dashed #777; margin: -1px 0 0 -1px; break-inside: avoid; }}
  h2 {{ margin: 0 0 2mm; font-size: 12pt; overflow-wrap: anywhere; }}
  dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 0 4mm; margin: 0; }}
  dt {{ color: #444; }}
  dd {{ margin: 0; overflow-wrap: anywhere; }}
  kbd {{ font: bold 13pt/1.4 monospace; }}
  @media print {{ body {{ margin: 0; }} @page {{ margin: 12mm; }} }}
</style>
</head>
<body>
<main>
{cards}
</main>
</body>
</html>
"""


def page(accounts: Iterable[tuple[str, str, str]], url: str | None) -> str:
    """
    The page.

    accounts
        (login name, password, name of the person or "") of each.
    url
        Where to log in.
    """
    return _PAGE.format(cards="\n".join(_card(*account, url) for account in accounts))


def _card(login: str, password: str, fullname: str, url: str | None) -> str:
    rows = [("Address", html.escape(url))] if url else []
    rows += [("Login", f"<kbd>{html.escape(login)}</kbd>"), ("Password", f"<kbd>{html.escape(password)}</kbd>")]
    lines = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows)
    return f"<section><h2>{html.escape(fullname or login)}</h2><dl>{lines}</dl></section>"
