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
    "dismissal-raises-what-ended-the-session": 430,
    "estate-settled-although-the-callback-failed": 515,
    "late-comer-to-a-barrier-forgotten": 250,
    "loss-of-one-is-not-the-loss-of-all": 980,
    "opening-of-a-latch-not-seen": 680,
    "orphan-kept-when-settling-failed": 190,
}
"""Of mutants that are found late: the schedule to begin with, to save time."""
