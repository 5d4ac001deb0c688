"""
Accounts of people, by the thousand: compare all of them in memory, act on the differences in one change of the files.

``plasma_users_tables`` and ``plasma_users_observe`` read, ``plasma_users_plan`` and ``plasma_users_leave`` decide,
``plasma_users_write`` changes the account files, ``plasma_users_homes`` and ``plasma_users_processes`` do the rest.
Accounts that pillar does not name are left alone. Passwords arrive as hashes, and neither those nor anything made from
them is in what functions here return.
"""

from __future__ import annotations

import time

from salt.exceptions import CommandExecutionError

import plasma_groups_plan
import plasma_hub_accounts
import plasma_public
import plasma_users_homes
import plasma_users_leave
import plasma_users_marks
import plasma_users_observe
import plasma_users_plan
import plasma_users_rename
import plasma_users_tables
import plasma_users_write
import tljh_settings
from plasma_users_observe import archives

plasma_public.offer(globals(), archives)

_POLICIES = ("on_create", "enforce")


def problems(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Return everything that keeps ``apply`` from doing its work, one sentence each; nothing is changed.

    The arguments are those of ``compare``.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.problems '[{name: games}]'
    """
    return compare(users, groups, home_path, password_policy, admins, prefix, root)["problems"]


def compare(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Return what ``apply`` would change, and change nothing.

    users, groups
        Lists of entries as the completed pillar has them. Groups that are not there yet are taken as made: the state
        ``plasma_groups.managed`` comes first.

    home_path
        Where the homes of new accounts are made.

    password_policy
        ``on_create`` sets a password where nobody has ever set one; ``enforce`` always keeps the one of pillar. A
        user's own ``password_policy`` goes first.

    admins
        Administrators of the hub; empty, they stay those of its config.yaml. When one leaves, another one must have an
        account.

    prefix
        Where the hub is installed.

    root
        Another directory than ``/`` holds the server: for tests.

    Returns ``{"problems": [str], "changes": {name: {"old", "new"}}, "counts": {"named", "created", "changed",
    "removed", "unmanaged"}, "pending": [names of people whose removal was begun, and whom pillar no longer names],
    "ignored": [names of people whose password was edited in pillar, and is not set with this policy]}``.
    Raises CommandExecutionError when the notes of earlier runs are damaged or something cannot be read.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.compare '[{name: anna, groups: [biology]}]' groups='[{name: biology}]'
    """
    with plasma_users_write.described():
        run = _Run(users, groups, home_path, password_policy, admins, prefix, root)
    changes = {**run.planned["changes"], **run.leaving["changes"]}
    changes = {} if run.problems else {**run.with_hub(changes), **run.hub_changes()}
    told = {"pending": run.pending(), "ignored": run.ignored}
    return {"problems": run.problems, "changes": changes, "counts": run.counts(changes), **told}


def apply(users, groups=(), home_path="/home", password_policy="on_create", admins=(), prefix="/opt/tljh", root="/"):
    """
    Make, change and remove accounts.

    The arguments are those of ``compare``.

    Returns ``{"changes", "counts", "pending", "ignored"}`` as ``compare`` does, with ``"archives": {name: path or
    None}`` of the removed ones and ``"error": None``, or what went wrong; ``changes`` are those made all the same.
    Raises CommandExecutionError with all the problems, one a line, before anything is changed, and when another program
    keeps the account files for itself.

    CLI Example:

    .. code-block:: bash

        salt-ssh '*' plasma_users.apply '[{name: anna, absent: true}]'
    """
    with plasma_users_write.described(), plasma_users_write.lock(root=root):
        run = _Run(users, groups, home_path, password_policy, admins, prefix, root)
        if run.problems:
            raise CommandExecutionError("\n".join(run.problems))
        try:
            run.apply()
        except OSError as exc:  # a disk that is full or read-only
            run.errors.append(f"{plasma_users_write.describe(exc)}.")
    return {
        "changes": run.changes,
        "archives": run.archives,
        "error": " ".join(run.errors) or None,
        "counts": run.counts(run.changes),
        "pending": run.pending(),
        "ignored": run.ignored,
    }


class _Run:
    """One comparison: what there is, what is planned, and what was done about it."""

    def __init__(self, users, groups, home_path, password_policy, admins, prefix, root):
        if password_policy not in _POLICIES:
            raise CommandExecutionError(f"password_policy must be {' or '.join(_POLICIES)}, not {password_policy!r}.")
        self.users, self.groups, self.home_path, self.policy = users, groups, home_path, password_policy
        self.prefix, self.root = prefix, root
        self.present = [user["name"] for user in users if not user.get("absent")]
        self.absent = [user["name"] for user in users if user.get("absent")]
        self.changes, self.archives, self.errors = {}, {}, []
        seen = plasma_users_observe.observe(users, home_path=home_path, root=root)
        # People whose removal was killed when their accounts were gone already. What the files still have of them is
        # taken as gone: that comes first.
        self.begun = [name for name in seen["memory"]["removing"] if name not in seen["passwd"]["rows"]]
        self._edit(seen, plasma_users_leave.edits(seen, self.begun))
        going = [user for user in users if user.get("absent") or user.get("was") in seen["passwd"]["rows"]]
        self.protected = plasma_users_leave.protected(root=self.root) if going else {}
        self.moves, refused = plasma_users_rename.plan(seen, users, self.protected)
        self.current = plasma_users_rename.after(seen, self.moves)
        self.memory, self.accounts = self.current["memory"], self.current["passwd"]["rows"]
        self.leaving = self._leaving(admins)
        self.planned = self._plan(self.current)
        self.stale_new, self.stale_gone, self.asked, self.hub_error = [], [], [], None
        self.problems = refused + self.planned["problems"] + self.leaving["problems"]
        self.problems += self._ask_hub() if not refused else []
        self.marks, self.ignored = self._marks()

    @staticmethod
    def _edit(current, edits):
        current.update({kind: plasma_users_tables.edited(current[kind], rows) for kind, rows in edits.items()})

    def _plan(self, current):
        """The plan for those who stay; groups that pillar wants are taken as made."""
        wanted = [group for group in self.groups if not group.get("absent")]
        current = dict(current)
        self._edit(current, plasma_groups_plan.plan(current, wanted)["edits"])
        today = int(time.time()) // 86400
        planned = plasma_users_plan.plan(current, self.users, self.groups, self.home_path, self.policy, today)
        return {**planned, "changes": plasma_users_rename.told(self.moves, planned["changes"])}

    def _leaving(self, admins):
        """The plan for those who leave. Administrators are asked for only when somebody does."""
        if not set(self.absent) & set(self.accounts):
            return plasma_users_leave.plan(self.current, self.users)
        # By config.yaml, which the hub's next start reads, and by its database, which decides now.
        now = {str(name) for name in tljh_settings.get("users.admin", prefix=self.prefix) or ()}
        try:
            now.update(plasma_hub_accounts.administrators(prefix=self.prefix) or ())
        except CommandExecutionError:
            pass  # it does not answer; that is told when it is to forget somebody
        return plasma_users_leave.plan(self.current, self.users, self.protected, admins, now)

    def _ask_hub(self):
        """
        Find names that the hub has but the server does not, because somebody deleted the account by hand: the next of
        that name would get the rights, tokens and servers. The hub is asked for people who get an account, and once for
        people who are to be absent; then it is noted that it knows them no more. Somebody who was never there leaves
        nothing: such are the administrators that pillar has just named. Returns problems.
        """
        new = [name for name in self.present if name not in self.accounts]
        known_absent = {*self.accounts, *self.memory["forgotten"], *self.memory["removing"]}
        gone = [name for name in self.absent if name not in known_absent]
        if not (new or gone):
            return []
        try:
            known = plasma_hub_accounts.users(prefix=self.prefix)
        except CommandExecutionError as exc:
            self.hub_error = str(exc)
            more = f" and {len(new) - 3:,} more" if len(new) > 3 else ""
            problem = f"somebody who had the name before may be known to the hub, which cannot be asked. {exc}"
            return [f"user {', '.join(map(str, new[:3]))}{more}: {problem}"] if new else []
        for name in self.accounts:
            known.pop(name, None)
        seen = {name for name, person in known.items() if person["seen"] or person["servers"]}
        self.stale_new = [name for name in new if str(name) in seen]
        self.stale_gone, self.asked = [name for name in gone if name in known], gone
        return []

    def _marks(self):
        """The marks of passwords to note, and whose password was edited in pillar without being set."""
        changes, rows = self.planned["changes"], self.current["shadow"]["rows"]
        being_set = [name for name, change in changes.items() if "password" in change["new"]]
        hashes = {name: row[1] for name, row in rows.items()}
        users = [user for user in self.users if not user.get("absent")]
        marks, ignored = plasma_users_marks.compare(users, self.memory["marks"], hashes, being_set)
        named = {*self.present, *self.absent}
        others = {
            name: mark for name, mark in self.memory["marks"].items() if name in self.accounts and name not in named
        }
        return {**others, **marks}, ignored

    def with_hub(self, changes):
        """The changes of new accounts, with what the hub is to forget before."""
        forgotten = {
            name: {**changes[name], "new": {**changes[name]["new"], "hub": "forgotten"}} for name in self.stale_new
        }
        return {**changes, **forgotten}

    def hub_changes(self):
        """The changes of people who are at the hub alone."""
        return {name: {"old": {"hub": "known"}, "new": {"hub": "forgotten"}} for name in self.stale_gone}

    def pending(self):
        """Whose removal was begun, so that they are locked, and whom pillar names no more."""
        named = {*self.present, *self.absent}
        return sorted(name for name in self.memory["removing"] if name in self.accounts and name not in named)

    def counts(self, changes):
        defs, named = self.current["defs"], {*self.present, *self.absent}
        people = plasma_users_tables.ids(self.current["passwd"]).items()
        created = sum(change["old"] is None for change in changes.values())
        removed = sum(change["new"] is None for change in changes.values())
        return {
            "named": len(self.present),
            "created": created,
            "changed": len(changes) - created - removed,
            "removed": removed,
            "unmanaged": sum(name not in named and defs["UID_MIN"] <= uid <= defs["UID_MAX"] for uid, name in people),
        }

    def apply(self):
        """Do the work; ``changes``, ``archives`` and ``errors`` say, step by step, what is done."""
        # What a killed run left, before anybody new gets the names.
        if self.begun:
            plasma_users_leave.drop(self.begun, root=self.root)
            self._note_removed(plasma_users_leave.finish(self.begun, root=self.root))
            self.memory = plasma_users_write.recall(root=self.root)
        if self.moves:
            self._rename()
        paths = self.current["seen"]["paths"]
        plasma_users_homes.clear([paths[name] for name in self.memory["making"] if paths.get(name)], root=self.root)
        self._forget()
        if self.planned["edits"] or self.planned["homes"]:
            self._change()
        # A removal that pillar took back is none.
        removing = {name: note for name, note in self.memory["removing"].items() if name not in self.present}
        # Of a password that could not be set, nothing is noted.
        marks = self.memory["marks"] if self.errors else self.marks
        self._remember({**self._given(), "making": {}, "removing": removing, "marks": marks})
        # Whatever is wrong with the homes of others: who is to leave leaves.
        try:
            leavers = self.leaving["leavers"]
            self._note_removed(plasma_users_leave.remove(leavers, prefix=self.prefix, root=self.root))
        except CommandExecutionError as exc:
            self.errors.append(str(exc))

    def _rename(self):
        """Give people their new names, before anything else is done about them."""
        done = plasma_users_rename.rename(self.moves, prefix=self.prefix, root=self.root)
        self.moves, failed = done["done"], done["failed"]
        self.changes.update(plasma_users_rename.told(self.moves, {}))
        self.errors += [f"user {name}: {problem}." for name, problem in sorted(failed.items())]
        # Of those who kept the old name nothing else is changed, least of all is a new account made for them.
        self.users = [user for user in self.users if user["name"] not in failed]
        self.present = [name for name in self.present if name not in failed]
        self.leaving["leavers"] = [one for one in self.leaving["leavers"] if one["name"] not in failed]
        self.current = plasma_users_observe.observe(self.users, home_path=self.home_path, root=self.root)
        self.memory, self.accounts = self.current["memory"], self.current["passwd"]["rows"]
        self.planned = self._plan(self.current)

    def _change(self):
        """Make and change accounts. What is about to be made is noted before."""
        given, new = self.memory["given"], self._given()
        # Memberships that are about to go stay noted until they are gone.
        union = {name: sorted({*given.get(name, ()), *new["given"].get(name, ())}) for name in {*given, *new["given"]}}
        self._remember({**new, "given": union, "making": {**self.memory["making"], **self.planned["making"]}})
        changes = dict(self.planned["changes"])

        def look(tables=None):
            memory = self.memory
            seen = plasma_users_observe.observe(self.users, self.home_path, self.root, tables=tables, memory=memory)
            return self._plan(seen)

        def edits(tables):
            planned = self.planned = look(tables)
            if planned["problems"]:
                raise CommandExecutionError("\n".join(planned["problems"]))
            if planned["edits"]:
                changes.update(planned["changes"])
                # Others may have taken ids meanwhile.
                self._remember({"making": {**self.memory["making"], **planned["making"]}})
            return planned["edits"]

        try:
            plasma_users_write.change(edits, root=self.root)
        except OSError:
            left = look()["changes"]
            self.changes.update({name: change for name, change in changes.items() if name not in left})
            raise
        self.changes.update(self.with_hub(changes))
        try:
            plasma_users_homes.make(self.planned["homes"], root=self.root)
        except (CommandExecutionError, OSError) as exc:
            self.errors.append(f"{plasma_users_write.describe(exc)}.")

    def _given(self):
        """The notes of memberships and of whom the hub forgot; those of people whom pillar no longer names stay."""
        named = {*self.present, *self.absent}
        others = {
            name: given for name, given in self.memory["given"].items() if name in self.accounts and name not in named
        }
        forgotten = {*self.memory["forgotten"], *self.asked} & set(self.absent)
        return {
            "given": {**others, **self.planned["given"]},
            "forgotten": {name: True for name in sorted(forgotten)},
        }

    def _remember(self, notes):
        new = {**self.memory, **notes}
        if new != self.memory:
            plasma_users_write.remember(new, root=self.root)
            self.memory = new

    def _forget(self):
        """Let the hub forget people who have no account any more."""
        if self.hub_error:
            self.errors.append(self.hub_error)
        names = sorted({*self.stale_new, *self.stale_gone})
        try:
            if names:
                plasma_hub_accounts.forget(names, prefix=self.prefix, timeout=60)
        except CommandExecutionError as exc:
            if self.stale_new:
                raise
            self.errors.append(str(exc))
            self.stale_gone, self.asked = [], []
        self.changes.update(self.hub_changes())

    def _note_removed(self, done):
        self.archives.update(done["archives"])
        changes = self.leaving["changes"]
        self.changes.update({name: changes[name] for name in done["archives"] if name in changes})
        failed = [f"user {name}: {problem}." for name, problem in sorted(done["failed"].items())]
        more = [f"{len(failed) - 10:,} more could not be removed."] if len(failed) > 10 else []
        self.errors += [*failed[:10], *more]
