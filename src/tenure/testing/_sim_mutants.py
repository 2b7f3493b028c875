"""Mutants of the recipes that are more than one lease: slots, estates, many locks, counts."""

from __future__ import annotations

from typing import NamedTuple

from ._sim_lease import Kind


class Edit(NamedTuple):
    """Replace `old` by `new` in one function, given as `module:Class.function`."""

    where: str
    old: str
    new: str


_CLAIMS = "tenure._recipes.claims:ClaimsRecipe."
_MULTI = "tenure._recipes.multilock:MultiRecipe."
_MULTI_LEASE = "tenure._recipes.multilock:BaseMultiLease."
_GROUP = "tenure._recipes.group:GroupRecipe."
_POST = "tenure._recipes.post:PostedLease."
_OBJECTS = "tenure.aio.objectlock:LockService."
_PARTY = "tenure._recipes.barrier:_Party."

TRIALS_MUTANTS: dict[str, tuple[Edit, ...]] = {
    # -- slots ---------------------------------------------------------------------
    "slot-released-before-its-work-is-put-away": (
        Edit(
            _CLAIMS + "_settle",
            "await self._call(self._told.release, slot, each)",
            "await each.lease._release(); await self._call(self._told.release, slot, each)",
        ),
    ),
    "slot-kept-although-it-is-due-to-another": (
        Edit(_CLAIMS + "_settle", "elif slot not in self.wanted:", "elif self.closed:"),
    ),
    "other-members-not-noticed": (
        Edit(_CLAIMS + "open", "self._ring.refreshed = self._assign", "pass"),
    ),
    "loss-of-a-slot-not-told": (
        Edit(_CLAIMS + "_drop", "await self._call(self._told.lost, slot, each)", "pass"),
    ),
    # -- estates -------------------------------------------------------------------
    "estate-deleted-as-soon-as-it-is-taken": (
        Edit(
            "tenure._recipes.estates:BaseOrphan._take",
            "if self._version is not None:",
            "if await records.swap(session, self._record, None, self._version):",
        ),
    ),
    "estate-settled-although-the-callback-failed": (
        Edit(
            "tenure._recipes.estates:Vigil.handle",
            "self._shunned[orphan.member] = session.now() + session.ttl",
            "await orphan._settle()",
        ),
    ),
    "orphan-kept-when-settling-failed": (
        Edit(
            "tenure._recipes.estates:BaseOrphan._settle",
            "await session.runtime.finish(self.release_at_close())",
            "pass",
        ),
    ),
    "estate-of-an-earlier-self-overwritten": (
        Edit(
            "tenure._recipes.members:BaseMember._recover",
            'if left is not None and "estate" in left:',
            "if False:",
        ),
    ),
    "estates-not-looked-for": (
        Edit("tenure._recipes.estates:Heirs.orphans", "if id not in living", "if id in living"),
    ),
    "dismissal-raises-what-ended-the-session": (
        Edit(
            "tenure._recipes.members:BaseMember._dismiss",
            "session.lose(life, str(gone))",
            "raise",
        ),
    ),
    # -- deletion by force -----------------------------------------------------------
    "member-left-in-a-group-deleted-by-force": (
        Edit(
            _GROUP + "_evict",
            "await self.session.driver.withdraw(claim.session, claim.roster, claim.id)",
            "pass",
        ),
    ),
    "estate-left-by-a-deletion-by-force": (
        Edit(_GROUP + "_empty", "await self._delete_record(name)", "pass"),
    ),
    "group-deleted-by-force-is-there": (
        Edit(
            _GROUP + "delete",
            "if await records.swap(self.session, self.roster, None, version) is not None:",
            "if await records.swap(self.session, self.roster, None, version) or force:",
        ),
    ),
    "joined-a-group-made-anew-without-a-look": (
        Edit(_GROUP + "_settle", "whole and _identity(found) == known", "whole"),
    ),
    "joined-without-being-shown": (
        Edit(_GROUP + "_settle", "if await member._stands():", "if True:"),
    ),
    "removed-member-not-told": (
        Edit(
            "tenure._recipes.members:BaseMember._dismiss",
            "with session.shared:",
            "return\n    with session.shared:",
        ),
        Edit(_POST + "_rewrite", "raise self._loss() from error", "self._claim = claim"),
    ),
    "group-emptied-without-force": (
        Edit(_GROUP + "_empty", "if not force and claims:", "if False:"),
    ),
    "removed-member-loses-its-session": (
        Edit(
            "tenure._recipes.members:BaseMember._removed",
            "await session.driver.renew(life.id)",
            "raise SessionLost('the member was removed')",
        ),
    ),
    "removed-member-keeps-its-id": (
        Edit(
            "tenure._recipes.members:BaseMember._dismiss",
            "session.owe(life, self._roster, self._id)",
            "pass",
        ),
    ),
    "removed-member-holds-until-its-id-is-free": (
        Edit("tenure._recipes.members:BaseMember._dismiss", "self._reason = reason", "pass"),
    ),
    # -- object locks ----------------------------------------------------------------
    "object-shared-by-the-callers-of-a-process": (
        Edit(_OBJECTS + "_key", "coordinator._session.runtime.caller()", "None"),
    ),
    "object-unlocked-by-another-caller": (
        Edit(
            _OBJECTS + "_hold",
            "key = self._key(coordinator, object_id)",
            "key = next((each for each in self._held if each[1] == object_id), ('', ''))",
        ),
    ),
    "object-not-locked-again-by-its-holder": (
        Edit(_OBJECTS + "lock", "if hold is not None:", "if hold is not None and block:"),
    ),
    "nested-lock-not-counted": (Edit(_OBJECTS + "lock", "hold.depth += 1", "pass"),),
    "object-unlocked-by-the-first-unlock": (
        Edit(_OBJECTS + "unlock", "if hold.depth:", "if False:"),
    ),
    "object-unlocked-once-too-late": (
        Edit(_OBJECTS + "unlock", "if hold.depth:", "if hold.depth >= 0:"),
    ),
    "lost-object-locked-again": (Edit(_OBJECTS + "lock", "hold.lease.check()", "pass"),),
    "lost-object-unlocked-without-a-word": (
        Edit(_OBJECTS + "unlock", "hold.lease.check()", "pass"),
    ),
    "lost-object-never-let-go": (
        Edit(
            _OBJECTS + "unlock",
            "del self._held[key]\n    await hold.lease.release()",
            "await hold.lease.release()\n    del self._held[key]",
        ),
    ),
    "loss-of-an-object-not-told": (
        Edit(_OBJECTS + "check", "self._hold(object_id)[1].lease.check()", "self._hold(object_id)"),
    ),
    # -- many locks ----------------------------------------------------------------
    "many-locks-in-any-order": (
        Edit(_MULTI + "__init__", "tuple(sorted(set(names)))", "tuple(dict.fromkeys(names))"),
    ),
    "some-of-many-kept": (Edit(_MULTI + "_acquire", "if leases and not whole:", "if False:"),),
    "many-locks-not-all-held": (
        Edit(_MULTI + "_acquire", "all(lease.held() for lease in leases)", "True"),
    ),
    "loss-of-one-is-not-the-loss-of-all": (
        Edit(_MULTI_LEASE + "_first_lost", "self._leases if", "self._leases[:1] if"),
        Edit(_MULTI_LEASE + "state.fget", "self._leases}", "self._leases[:1]}"),
    ),
    "loss-of-many-not-told": (Edit(_MULTI_LEASE + "_one_lost", "self._call_back()", "pass"),),
    # -- barriers ------------------------------------------------------------------
    "barrier-passed-by-one-too-few": (
        Edit("tenure._recipes.barrier:opened", "if len(pending) < parties:", "if not pending:"),
        Edit(
            "tenure._recipes.barrier:opened",
            "while len(pending) >= parties:",
            "parties -= 1\n    while len(pending) >= parties:",
        ),
    ),
    "given-up-without-a-word-in-the-record": (
        Edit(_PARTY + "_give_up", "if await self._ledger.write(entry, version):", "if True:"),
    ),
    "late-comer-to-a-barrier-forgotten": (
        Edit(_PARTY + "_leave", "if self._unsure:", "if False:"),
    ),
    "late-comer-to-a-barrier-counted": (
        Edit("tenure._recipes.barrier:opened", "and claim.id not in gone", ""),
    ),
    # -- latches -------------------------------------------------------------------
    "counted-twice-when-the-reply-is-lost": (
        Edit("tenure._recipes.latch:LatchRecipe.count_down", "marked=True", "marked=False"),
    ),
    "counted-although-somebody-was-faster": (
        Edit("tenure._recipes.ledger:Ledger.change", "if done:", "if done is not None:"),
    ),
    "opening-of-a-latch-not-seen": (
        Edit(
            "tenure._recipes.latch:_is_open",
            'not entry["count"] or entry["opened"] > opened',
            'entry["opened"] > opened',
        ),
    ),
}
"""By name, the edits that make the mutant."""

TRIALS_KINDS: dict[str, Kind] = {
    "slot-released-before-its-work-is-put-away": "claims",
    "slot-kept-although-it-is-due-to-another": "claims",
    "other-members-not-noticed": "claims",
    "loss-of-a-slot-not-told": "claims",
    "estate-deleted-as-soon-as-it-is-taken": "estate",
    "estate-settled-although-the-callback-failed": "estate",
    "orphan-kept-when-settling-failed": "estate",
    "estate-of-an-earlier-self-overwritten": "estate",
    "estates-not-looked-for": "estate",
    "dismissal-raises-what-ended-the-session": "estate",
    "member-left-in-a-group-deleted-by-force": "group",
    "estate-left-by-a-deletion-by-force": "estate",
    "group-deleted-by-force-is-there": "group",
    "joined-a-group-made-anew-without-a-look": "group",
    "joined-without-being-shown": "group",
    "removed-member-not-told": "group",
    "group-emptied-without-force": "group",
    "removed-member-loses-its-session": "group",
    "removed-member-keeps-its-id": "group",
    "removed-member-holds-until-its-id-is-free": "group",
    "object-shared-by-the-callers-of-a-process": "object",
    "object-unlocked-by-another-caller": "object",
    "object-not-locked-again-by-its-holder": "object",
    "nested-lock-not-counted": "object",
    "object-unlocked-by-the-first-unlock": "object",
    "object-unlocked-once-too-late": "object",
    "lost-object-locked-again": "object",
    "lost-object-unlocked-without-a-word": "object",
    "lost-object-never-let-go": "object",
    "loss-of-an-object-not-told": "object",
    "many-locks-in-any-order": "multilock",
    "some-of-many-kept": "multilock",
    "many-locks-not-all-held": "multilock",
    "loss-of-one-is-not-the-loss-of-all": "multilock",
    "loss-of-many-not-told": "multilock",
    "barrier-passed-by-one-too-few": "barrier",
    "given-up-without-a-word-in-the-record": "barrier",
    "late-comer-to-a-barrier-forgotten": "barrier",
    "late-comer-to-a-barrier-counted": "barrier",
    "counted-twice-when-the-reply-is-lost": "latch",
    "counted-although-somebody-was-faster": "latch",
    "opening-of-a-latch-not-seen": "latch",
}
"""What the clients are to ask for; among all schedules each is too rare."""

FIRST: dict[str, int] = {
    "dismissal-raises-what-ended-the-session": 1120,
    "joined-a-group-made-anew-without-a-look": 560,
    "estate-settled-although-the-callback-failed": 680,
    "debt-paid-only-once": 255,
    "late-comer-to-a-barrier-forgotten": 250,
    "late-duplicate-forgotten": 315,
    "late-post-forgotten": 398,
    "loss-of-one-is-not-the-loss-of-all": 980,
    "orphan-kept-when-settling-failed": 190,
}
"""Of mutants that are found late: the schedule to begin with, to save time."""
