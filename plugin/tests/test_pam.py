"""Every answer of PAM, second factors, and passwords that have to be changed or are."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import pytest
from support_pam import Script, form, pam_service  # noqa: F401 (a fixture)
from tljh_plasma import pam, pam_words, pending
from tljh_plasma.auth import PlasmaPAMAuthenticator, Unfinished
from tornado import web

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="PAM lets only root check passwords of others")
UNIX = "auth required pam_unix.so\n"
ACCOUNT = "account required pam_unix.so\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(pam_words, "DELAY", 0)


@pytest.fixture
def ask(pam_service):  # noqa: F811
    """Logs in through a service of the given text; returns the name, None, or what is raised."""

    def play(text, name, password, *more, handler=None, keep=None):
        authenticator = keep or PlasmaPAMAuthenticator(allow_all=True)
        if text:
            authenticator.service = pam_service(text)

        async def talk():
            data = {"username": name, "password": password}
            for answers in (*more, None):
                try:
                    return await authenticator.authenticate(handler or form(), data)
                except Unfinished as unfinished:
                    if answers is None:
                        for key in list(authenticator._pending._waiting):
                            authenticator._pending.end(key)
                        return unfinished
                    data = {"dialogue": unfinished.key, **answers}
                except web.HTTPError as error:
                    return error
            return None

        return asyncio.run(talk())

    return play


@pytest.fixture(scope="module")
def person(accounts):
    return accounts.add("code")


def in_debug(code):
    """What pam_debug calls it."""
    return pam_words.NAMES[code].lower().replace("recovery", "recover")


# Logins.


@needs_root
@pytest.mark.parametrize("code", sorted(set(pam_words.NAMES) - {pam_words.SUCCESS, pam_words.IGNORE}))
def test_every_answer_about_an_account_has_its_sentence(ask, person, code):
    """pam_debug answers whatever it is told to."""
    name = in_debug(code)
    found = ask(f"{UNIX}account required pam_debug.so acct={name}\n", person.name, person.password)
    if code == pam_words.NEW_AUTHTOK_REQD:
        assert isinstance(found, Unfinished) and found.waiting.talk is None
        return
    assert found.status_code == 403, found
    assert found.log_message.startswith(pam_words._ACCOUNT.get(code, pam_words.TROUBLE))
    # One who does not know the password is told none of it, nor whether there is such an account.
    assert ask(f"{UNIX}account required pam_debug.so acct={name}\n", person.name, "wrong") is None


@needs_root
@pytest.mark.parametrize("code", sorted(set(pam_words.NAMES) - {pam_words.SUCCESS, pam_words.IGNORE}))
def test_before_the_password_was_right_all_answers_are_one(ask, person, code):
    stack = f"auth requisite pam_debug.so auth={in_debug(code)}\n{UNIX}{ACCOUNT}"
    if code == pam_words.NEW_AUTHTOK_REQD:
        stack = stack.replace("requisite", "[default=die]")
    assert ask(stack, person.name, person.password) is None


@needs_root
def test_a_broken_service_lets_nobody_in(ask, accounts):
    person = accounts.add("broken")
    for text in ("auth required pam_no_such_module.so\n", "nonsense\n", f"{UNIX}account required pam_deny.so\n"):
        assert ask(text, person.name, person.password) != person.name


@needs_root
def test_what_the_system_says_is_shown_after_the_right_password(ask, accounts, tmp_path):
    person = accounts.add("closed")
    note = tmp_path / "nologin"
    note.write_text("Back at 5 <b>pm</b>\n")
    text = f"{UNIX}account required pam_nologin.so file={note}\n{ACCOUNT}"
    found = ask(text, person.name, person.password)
    assert found.log_message == f"{pam_words.REFUSED} The server says: Back at 5 <b>pm</b>."
    assert ask(text, person.name, "wrong") is None


def test_a_server_that_is_closed_says_so_to_everybody(tmp_path):
    assert pam_words.closed(str(tmp_path)) == ""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nologin").write_text("")
    assert pam_words.closed(str(tmp_path)) == pam_words.CLOSED
    (tmp_path / "etc" / "nologin").write_text("New disks,\nuntil noon")
    assert pam_words.closed(str(tmp_path)) == f"{pam_words.CLOSED} The server says: New disks, until noon."


@needs_root
def test_an_expired_account_and_an_expired_password(ask, accounts):
    person = accounts.add("old")
    subprocess.run(["chage", "--lastday", "10000", "--maxdays", "10", "--inactive", "5", person.name], check=True)
    assert ask(UNIX + ACCOUNT, person.name, person.password).log_message.startswith(pam_words.PASSWORD_EXPIRED)
    subprocess.run(["chage", "--lastday", "-1", "--maxdays", "-1", "--expiredate", "1", person.name], check=True)
    assert ask(UNIX + ACCOUNT, person.name, person.password).log_message.startswith(pam_words.EXPIRED)
    assert ask(UNIX + ACCOUNT, person.name, "wrong") is None


def entry(name):
    lines = open("/etc/shadow").read().splitlines()  # noqa: SIM115
    return next(line.split(":") for line in lines if line.startswith(f"{name}:"))


@needs_root
def test_a_password_that_has_to_be_changed_is_changed_at_the_login(ask, accounts):
    person = accounts.add("must")
    subprocess.run(["chage", "--lastday", "0", person.name], check=True)
    text, new = UNIX + ACCOUNT, "Zebra-crossing 71 %s"

    def fields(first, second=None):
        return {"new_password": first, "new_password_again": first if second is None else second}

    before = entry(person.name)
    found = ask(text, person.name, person.password)
    assert isinstance(found, Unfinished) and not found.problem and found.waiting.said
    for wrong, words in (
        (fields(new, "another"), pam_words.NOT_THE_SAME),
        (fields(""), "empty"),
        (fields("a"), pam_words.NOT_ACCEPTED),
        (fields(person.password), pam_words.UNCHANGED),
        (fields("x" * 600), "at most 511 bytes"),
        (fields("new\npassword 123"), "control characters"),
    ):
        found = ask(text, person.name, person.password, wrong)
        assert words in found.problem, wrong
        assert entry(person.name) == before
    # After a refused one the form is there again, and goes on.
    assert ask(text, person.name, person.password, fields("a"), fields(new)) == person.name
    assert entry(person.name)[1] != before[1] and entry(person.name)[2] != "0"
    assert ask(text, person.name, new) == person.name
    assert ask(text, person.name, person.password) is None


@needs_root
def test_the_rules_about_accounts_are_all_asked_after_a_change(ask, accounts):
    """Where common-account says new_authtok_reqd=done, as Debian's does, nothing after it was asked before."""
    person = accounts.add("after")
    subprocess.run(["chage", "--lastday", "0", person.name], check=True)
    text = f"{UNIX}account [new_authtok_reqd=done default=ignore] pam_unix.so\naccount required pam_deny.so\n"
    new = {"new_password": "Zebra-crossing 71", "new_password_again": "Zebra-crossing 71"}
    found = ask(text, person.name, person.password, new)
    assert isinstance(found, web.HTTPError) and found.status_code == 403


@needs_root
def test_a_form_works_once_and_for_a_while(accounts, pam_service, monkeypatch):  # noqa: F811
    person = accounts.add("once")
    subprocess.run(["chage", "--lastday", "0", person.name], check=True)
    authenticator = PlasmaPAMAuthenticator(allow_all=True, service=pam_service(UNIX + ACCOUNT))
    monkeypatch.setattr(pending, "TIME", 0.3)
    again = {"new_password": "x", "new_password_again": "x"}

    async def play():
        data = {"username": person.name, "password": person.password}
        with pytest.raises(Unfinished) as first:
            await authenticator.authenticate(form(), data)
        with pytest.raises(Unfinished) as second:
            await authenticator.authenticate(form(), {"dialogue": first.value.key, **again})
        for key in (first.value.key, "made up", ""):
            with pytest.raises(web.HTTPError, match="took too long"):
                await authenticator.authenticate(form(), {"dialogue": key, **again})
        await asyncio.sleep(0.5)
        with pytest.raises(web.HTTPError, match="took too long"):
            await authenticator.authenticate(form(), {"dialogue": second.value.key, **again})
        # A program cannot go on.
        with pytest.raises(web.HTTPError, match="has to be changed"):
            await authenticator.authenticate(None, data)
        assert not len(authenticator._pending)

    asyncio.run(play())


# A second factor: pam_unix asks for the code, too, in words of its own.


@needs_root
def test_the_login_asks_as_often_as_pam_does(ask, accounts):
    """A second account's password stands for what only the person knows."""
    person = accounts.add("two")
    text = UNIX + "auth required pam_exec.so expose_authtok quiet /bin/true\n" + ACCOUNT
    assert ask(text, person.name, person.password) == person.name


def test_what_a_form_answers():
    async def play(given, *steps):
        talk = Script(*steps)
        step, answers = await pam.go_on(talk, await talk.step(), given)
        return talk.answers, step.code, answers

    given = pam.Given
    # The same question of a second module, a code, a code before the password, and something that may be seen.
    assert asyncio.run(play(given("pw"), "Password: ", "Password: ", 0)) == ([["pw"], ["pw"]], 0, [])
    assert asyncio.run(play(given("pw"), "Password: ", "Verification code: ", 0)) == ([["pw"]], None, [None])
    assert asyncio.run(play(given("pw"), "Verification code: ", 0)) == ([], None, [None])
    assert asyncio.run(play(given("pw"), "One-time password (OATH) for `anna': ", 0)) == ([], None, [None])
    assert asyncio.run(play(given("pw"), "Password: ", "Favourite colour? ", 0)) == ([["pw"]], None, [None])
    assert asyncio.run(play(given("pw"), "Login: +", 0)) == ([], None, [None])
    assert asyncio.run(play(given("pw"), ("Password: ", "Token: "), 0)) == ([], None, ["pw", None])
    # JupyterHub's own field for a code (request_otp).
    assert asyncio.run(play(given("pw", "123"), "Password: ", "Verification code: ", 0)) == ([["pw"], ["123"]], 0, [])
    waiting = pending.Waiting("anna", "anna", "", given("pw"), asked=(1, 2, 3), answers=["a", None, "c"])
    assert waiting.complete(["b"]) == ["a", "b", "c"] and waiting.complete([]) == ["a", "", "c"]
    assert "pw" not in repr(waiting) + repr(given("pw"))


def test_the_question_for_a_code_does_not_tell_who_there_is(monkeypatch):
    """Where PAM asks for it after a wrong password as well, a made-up name that is not asked would be known as one."""
    begun = []

    async def start(service, name, stages, uid=None):
        begun.append(name)
        return Script("Password: ", "Verification code: ", pam_words.SUCCESS if name == "root" else pam_words.AUTH_ERR)

    monkeypatch.setattr(pam.Conversation, "start", start)
    authenticator = PlasmaPAMAuthenticator(allow_all=True)

    async def log_in(name, code=None):
        with pytest.raises(Unfinished) as caught:
            await authenticator.authenticate(form(), {"username": name, "password": "wrong"})
        data = {"dialogue": caught.value.key, "answer-0": code}
        return [prompt.text for prompt in caught.value.waiting.prompts], await authenticator.authenticate(form(), data)

    async def play():
        # Where it is a matter of passwords alone, a made-up name costs nothing.
        assert await authenticator.authenticate(form(), {"username": "no-such-one", "password": "x"}) is None
        assert begun == []
        assert await log_in("root", "123") == (["Verification code: "], "root")
        assert await log_in("no-such-one", "123") == (["Verification code: "], None)

    asyncio.run(play())


# Two names that differ in capitals.


@needs_root
def test_two_accounts_that_differ_in_capitals_are_two_people(ask, accounts):
    lower = accounts.add("hans")
    name = lower.name.replace("hans", "Hans")
    subprocess.run(["useradd", "--badname", "--create-home", "--shell", "/bin/bash", name], check=True)
    accounts.users.append(name)
    subprocess.run(["chpasswd"], input=f"{name}:of the other one\n", text=True, check=True)
    text = UNIX + ACCOUNT
    keep = PlasmaPAMAuthenticator(allow_all=True)
    assert ask(text, name, "of the other one", keep=keep) == name
    assert keep.normalize_username(name) == name
    assert ask(text, lower.name, lower.password) == lower.name
    # Neither password opens the other account, however its name is written.
    for typed, password in (
        (lower.name, "of the other one"),
        (name, lower.password),
        (name.upper(), "of the other one"),
    ):
        assert ask(text, typed, password) is None
    assert ask(text, lower.name.upper(), lower.password) == lower.name
    # Whoever has logged in keeps their name, also where the database of accounts does not answer a moment later.
    accounts.remove(name)
    assert keep.normalize_username(name) == name
    assert ask(text, name, "of the other one") is None


# Changing a password.


def changing(script, proved=False):
    return asyncio.run(pam._change(script, "old one", "new one", proved))


@pytest.mark.parametrize(
    "prompts",
    [
        ("Current password: ", "New password: ", "Retype new password: "),
        ("(current) UNIX password: ", "Enter new UNIX password: ", "Retype new UNIX password: "),
        ("Current Kerberos password: ", "Enter new Kerberos password: ", "Retype new Kerberos password: "),
        ("Current Password: ", "New Password: ", "Reenter new Password: "),
    ],
)
def test_the_words_of_the_usual_modules(prompts):
    script = Script(*prompts, 0)
    changing(script)
    assert script.answers == [["old one"], ["new one"], ["new one"]]


@pytest.mark.parametrize("code", sorted(set(pam_words.NAMES) - {0}))
def test_every_answer_to_a_change_has_its_sentence(code):
    with pytest.raises(pam.NotChanged) as early:
        changing(Script("Current password: ", code))
    with pytest.raises(pam.NotChanged) as late:
        changing(Script("Current password: ", "New password: ", code, errors={2: "BAD PASSWORD: is a palindrome"}))
    wrong = code in set(pam_words._NOT_GOOD) - {pam_words.MAXTRIES}
    assert early.value.wrong is (wrong or code == pam_words.MAXTRIES)
    assert str(early.value).startswith(pam_words.WRONG_CURRENT) is wrong
    assert not late.value.wrong and str(late.value).endswith("The server says: is a palindrome.")


def test_a_rejected_password_is_not_offered_twice():
    script = Script("Current password: ", "New password: ", "New password: ", errors={2: "BAD PASSWORD: too short"})
    with pytest.raises(pam.NotChanged, match=r"not accepted.* The server says: too short\."):
        changing(script)
    assert script.abandoned and script.answers == [["old one"], ["new one"]]


@pytest.mark.parametrize(
    "script",
    [
        Script("Current password: ", "New password: ", "New password: ", errors={2: "BAD PASSWORD: is the same"}),
        Script("Current password: ", "New password: ", pam_words.AUTHTOK_ERR, errors={2: "Password unchanged"}),
    ],
)
def test_the_password_that_one_has_is_told_as_such(script):
    with pytest.raises(pam.NotChanged) as caught:
        asyncio.run(pam._change(script, "the one", "the one", False))
    assert str(caught.value) == pam_words.UNCHANGED and not caught.value.wrong
    # A wrong one is told as that.
    script = Script("Current password: ", pam_words.AUTHTOK_ERR)
    with pytest.raises(pam.NotChanged, match=pam_words.WRONG_CURRENT):
        asyncio.run(pam._change(script, "not the one", "not the one", False))


def test_what_a_page_cannot_answer_ends_it():
    script = Script("Current password: ", "Verification code: ")
    with pytest.raises(pam.NotChanged, match="Verification code"):
        changing(script)
    assert script.abandoned
    # Where nobody asks for the current password, whoever found an open browser could set a new one.
    script = Script("New password: ")
    with pytest.raises(pam.NotChanged, match="without asking"):
        changing(script)
    assert script.abandoned and script.answers == []
    changing(Script("New password: ", "Retype new password: ", 0), proved=True)


@needs_root
def test_root_changes_nothing_that_the_person_could_not(accounts):
    """pam_unix asks root for no current password, and lets it go below the minimum age and the rules."""
    person = accounts.add("change")
    new = "Zebra-crossing 71"

    def attempt(current, wanted):
        asyncio.run(pam.change(person.name, person.uid, current, wanted))

    async def first_question(uid):
        talk = await pam.Conversation.start(pam.PASSWORD_SERVICE, person.name, ["change"], uid)
        step = await talk.step()
        await talk.end()
        return step.asked[0].text

    # What root is asked, and would be given whatever it wants.
    assert "new" in asyncio.run(first_question(None)).lower()
    assert "current" in asyncio.run(first_question(person.uid)).lower()
    before = entry(person.name)
    for current, wanted, words in (
        ("wrong", new, pam_words.WRONG_CURRENT),
        (person.password, "a", pam_words.NOT_ACCEPTED),
        (person.password, person.password, pam_words.UNCHANGED),
    ):
        with pytest.raises(pam.NotChanged) as caught:
            attempt(current, wanted)
        assert str(caught.value).startswith(words)
        assert entry(person.name) == before
    subprocess.run(["chage", "--mindays", "3", person.name], check=True)
    with pytest.raises(pam.NotChanged, match="You must wait longer"):
        attempt(person.password, new)
    subprocess.run(["chage", "--mindays", "0", person.name], check=True)
    attempt(person.password, new)
    assert entry(person.name)[1] not in (before[1], new)
    attempt(new, "Größe & 漢字 71")


def test_why_a_directory_refuses_a_new_password_is_told_though_its_module_calls_it_no_error():
    """What sssd 2.8 says where an Active Directory wants a day between two changes."""
    words = "Password change rejected, or the minimum password age has not elapsed."
    said = (f"Password change failed. Server message: {words}",)
    asked = {"current_asked": True, "new_asked": True, "same": False}
    assert pam_words.not_changed(pam_words.AUTHTOK_ERR, [], said, **asked) == (
        f"{pam_words.NOT_ACCEPTED} The server says: {words}",
        False,
    )
    # An error counts before that, and a wrong current password needs no reason.
    found, _ = pam_words.not_changed(pam_words.AUTHTOK_ERR, ["BAD PASSWORD: It is short"], said, **asked)
    assert found == f"{pam_words.NOT_ACCEPTED} The server says: It is short."
    refused = ("Password change failed. Server message: Old password not accepted.",)
    found = pam_words.not_changed(pam_words.AUTHTOK_ERR, [], refused, **{**asked, "new_asked": False})
    assert found == (pam_words.WRONG_CURRENT, True)


@needs_root
def test_no_password_is_where_others_could_read_it(accounts, pam_service, caplog):  # noqa: F811
    """Not in arguments or variables of the process, nor in the log."""
    person = accounts.add("secret")
    text = "auth required pam_exec.so /bin/sleep 2\n" + UNIX + ACCOUNT
    authenticator = PlasmaPAMAuthenticator(allow_all=True, service=pam_service(text))

    def seen(pid):
        return b"".join(open(f"/proc/{pid}/{name}", "rb").read() for name in ("cmdline", "environ"))

    async def play():
        task = asyncio.ensure_future(
            authenticator.authenticate(form(), {"username": person.name, "password": "s3cret-x"})
        )
        found = b""
        until = time.monotonic() + 5
        while b"pam_child" not in found and time.monotonic() < until:
            await asyncio.sleep(0.05)
            children = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True, check=False)
            for pid in children.stdout.split():
                try:
                    found += seen(pid)
                except OSError:
                    continue
        assert b"pam_child" in found and b"s3cret-x" not in found
        assert await task is None

    asyncio.run(play())
    assert "s3cret-x" not in caplog.text
