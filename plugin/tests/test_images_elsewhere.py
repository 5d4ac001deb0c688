"""Images that were made elsewhere: links that lead into homes, and names of any length."""

from __future__ import annotations

import pytest
from tljh_plasma import environments, image_look
from tljh_plasma.image_look import Image, LedAstray


@pytest.mark.parametrize(
    ("place", "links", "found"),
    [
        ("/opt/plasma", {}, "/opt/plasma"),
        ("/opt/plasma", {"/opt": "/home/anna/x"}, "/home/anna/x/plasma"),
        ("/opt/plasma", {"/opt": "", "/opt/plasma": "/home/anna"}, "/home/anna"),
        ("/run/lock", {"/run": "/var/run", "/run/lock": "/home/anna"}, "/home/anna"),
    ],
)
def test_where_links_lead(place, links, found):
    assert image_look.led(place, links) == found


def check(targets, volumes, links):
    image_look.check(targets, Image(volumes=dict.fromkeys(volumes, True), links=links), "/home/anna")


def test_what_is_let_through_and_what_is_not():
    fine = {"/var/tmp": "/tmp", "/srv": "/var/srv", "/home/bea": "/opt", "/run/lock": "/home/annabel"}
    targets = ["/tmp", "/var/tmp", "/srv/data", "/run/lock", "/home/anna/mounted"]
    check(targets, ["/home/jovyan"], fine)
    check(targets, [], {"/home": "/var/home"})
    # The home itself is mounted there.
    check(targets, ["/home/anna"], {})
    for links in ({"/srv": "/home/anna"}, {"/tmp": "/home/anna/a/b"}, {"/home": "/srv", "/srv": "/srv/anna"}):
        with pytest.raises(LedAstray):
            check(targets, [], links)
    for target, links in (
        ("/etc/passwd", {"/home/anna": "/etc"}),
        ("/run/lock", {"/home": "/run", "/run/anna": "/run"}),
    ):
        with pytest.raises(LedAstray):
            check([target], [], {**links, "/home/anna": links.get("/home/anna", "/run")})
    with pytest.raises(LedAstray):
        check(targets, ["/home/anna/data"], {})


def test_names_of_images_are_shortened_and_their_directories_are_the_same():
    labels = {
        "repo2docker.ref": "1",
        "tljh_repo2docker.image_name": "long:1",
        "tljh_repo2docker.display_name": "w" * 5000,
    }
    (found,) = environments.from_images([{"Id": "sha256:1", "RepoTags": ["long:1"], "Labels": labels}])
    assert (len(found.name), found.name[-1], found.directory) == (200, "…", "w" * 64)


@pytest.mark.docker
def test_an_image_whose_links_lead_into_a_home_puts_nothing_there(hub, images, accounts, docker_host):
    """Root's directories and files used to appear there, through the mounts."""
    person = accounts.add("linked")
    hub.add_user(person.name)
    made = person.home / "made"
    before = sorted(person.home.iterdir())
    for number, commands in enumerate(
        (
            f"USER root\nRUN rm -rf /opt && ln -s {made} /opt",
            # Their home in the place of /etc would get the account files, as root's.
            f"USER root\nRUN mkdir -p {person.home.parent} && ln -s /etc {person.home}",
            f"VOLUME {made}",
        )
    ):
        image = images(f"plasmat-linked:{number}", f"Linked {number}", commands=commands)
        answer = hub.spawn(person.name, image)
        assert (answer.status_code, "lead into homes" in answer.text) == (500, True), answer.text
        assert sorted(person.home.iterdir()) == before
