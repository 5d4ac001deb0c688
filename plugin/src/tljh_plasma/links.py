"""Links that start an environment and open something in it, from a Git repository that is brought up to date before.

Such a link is the hub's page that starts servers, ``/hub/spawn?image=...``, with more beside the image: ``repo``,
``branch``, ``file``, ``opens``. The service makes links, and the hub checks each by the same rules when it is followed.
Where it leads is put together here, of parts, and the hub puts the address of the visitor's own server before it:
nothing in a link can name another place.

In the server nbgitpuller fetches the repository. What people have changed in it stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from urllib.parse import quote, urlencode

from .builds import BuildRefused
from .builds.request import MAX_REPOSITORY, REPOSITORY, check_reference
from .hub_rules import APPLICATIONS, OPENS, NotAllowed

FIELDS = ("repo", "branch", "file", "opens")
# What a file's path is put behind, in programs that can be told which file to open.
OPEN_FILES = {"lab": "/lab/tree/", "notebook": "/tree/"}
DEFAULT = "lab"
MAX_FILE = 300


class NoLink(Exception):
    """A link cannot be used; the text is one sentence."""


@dataclass(frozen=True)
class Link:
    """A link.

    Attributes:
        image: the environment that it starts.
        repo: URL of the Git repository; empty for none.
        branch: branch or tag; empty for the default branch.
        file: what is opened, a path in the repository or, without one, in the directory of the environment.
        opens: with what, as ``hub_rules.OPENS`` has it; empty for JupyterLab, or without repository and file for what
            the environment opens with.
    """

    image: str
    repo: str = ""
    branch: str = ""
    file: str = ""
    opens: str = ""

    def checked(self) -> Link:
        """Return the link with what was left out.

        Raises:
            NoLink: something in it is not allowed.
        """
        default = DEFAULT if self.repo or self.file else ""
        link = replace(self, repo=self.repo.rstrip("/"), opens=self.opens or default)
        # Its last part is the name of a directory beside those with people's settings.
        hidden = "/." in link.repo
        if link.repo and (len(link.repo) > MAX_REPOSITORY or not REPOSITORY.fullmatch(link.repo) or hidden):
            raise NoLink(
                "The repository of a link must be a URL like https://example.org/teacher/course, without a user name, "
                "a password, or a name that begins with a dot in it."
            )
        if link.branch and not link.repo:
            raise NoLink("A branch needs a repository: the link has none.")
        if link.branch:
            try:
                check_reference(link.branch)
            except BuildRefused as error:
                raise NoLink("The branch of a link must be the name of a branch or tag.") from error
        try:
            OPENS.check(link.opens or DEFAULT)
        except NotAllowed as error:
            raise NoLink(f"What a link opens with {error}: it must be {OPENS.words}.") from error
        link._check_file()
        return link

    def _check_file(self) -> None:
        if not self.file:
            return
        if self.opens not in OPEN_FILES:
            raise NoLink(
                f"A link can name a file to open with {' or '.join(OPEN_FILES)} alone: leave out the file, or open it "
                "with one of these."
            )
        odd = not self.file.isprintable() or "\\" in self.file or {"", ".", ".."} & set(self.file.split("/"))
        if odd or len(self.file) > MAX_FILE:
            raise NoLink(
                "The file of a link must be a path in the repository, such as week1/first.ipynb, without .. in it, of "
                f"at most {MAX_FILE} characters."
            )

    @property
    def query(self) -> str:
        """What follows the question mark of the link."""
        values = {name: getattr(self, name) for name in ("image", *FIELDS)}
        return urlencode({name: value for name, value in values.items() if value}, quote_via=quote)

    @property
    def target(self) -> str:
        """Where a checked link leads, in the server: a path with a query; empty for what the environment opens with."""
        # What nbgitpuller calls the directory.
        inside = "/".join(filter(None, (self.repo.rpartition("/")[2], self.file)))
        place = APPLICATIONS.get(self.opens, self.opens)
        if inside and self.opens in OPEN_FILES:
            place = OPEN_FILES[self.opens] + quote(inside)
        if not self.repo:
            return place
        asked = {"repo": self.repo, "branch": self.branch, "urlpath": place.lstrip("/")}
        return "/git-pull?" + urlencode({name: value for name, value in asked.items() if value}, quote_via=quote)
