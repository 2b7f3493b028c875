"""Ways to break the core, one at a time, each of which the simulator must notice.

A judge that never says no proves nothing. A mutant is an edit of one function's
source: with the edit in place the simulator must find a broken rule. An edit that no
longer applies, because the function was written anew, fails loudly and must be
written anew as well.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._sim_lease import Kind
from ._sim_mutants import TRIALS_KINDS, TRIALS_MUTANTS, Edit

_SESSION = "tenure._session:Session."
_LEASE = "tenure._lease:BaseLease."
_LOCK = "tenure._recipes.lock:LockRecipe."
_WAIT = "tenure._recipes.lock:_Waiter."
_GATES = "tenure._gate:Gates."
_DOCUMENT = "tenure.drivers.document:DocumentDriver."
_STORE = "tenure.testing._sim_stores:RosterStore."
_POST = "tenure._recipes.post:PostedLease."
_ELECTION = "tenure._recipes.election:ElectionRecipe."
_BOARD = "tenure._recipes.election:BoardWatch."
_GROUP = "tenure._recipes.group:GroupRecipe."

MUTANTS: dict[str, tuple[Edit, ...]] = {
    # -- the deadline ------------------------------------------------------------
    "deadline-from-the-reply-to-start": (
        Edit(_SESSION + "_begin", "self._extend(life, sent)", "self._extend(life, self.now())"),
    ),
    "deadline-from-the-reply-to-renew": (
        Edit(_SESSION + "_renew", "self._extend(life, sent)", "self._extend(life, self.now())"),
    ),
    "no-margin-for-drift": (
        Edit(_SESSION + "__init__", "self.margin = min(1.0, ttl * 0.1)", "self.margin = 0.0"),
    ),
    "no-deadline-timer": (Edit(_SESSION + "_begin", "self._arm(life)", "pass"),),
    "timer-not-set-again": (Edit(_SESSION + "_arm", "self._arm(life)", "pass"),),
    "held-without-the-clock": (
        Edit(
            _LEASE + "state.fget",
            "life.reason is not None or self._session.expire(life)",
            "life.reason is not None",
        ),
    ),
    "failed-renewal-taken-as-success": (
        Edit(
            _SESSION + "_renew",
            "self._doubt(life, str(error) or type(error).__name__)",
            "self._extend(life, sent)",
        ),
    ),
    "alive-again-after-the-loss": (
        Edit(
            _SESSION + "_renew",
            "alive = life.reason is None and self.runtime.now() < life.deadline",
            "alive, life.reason = True, None",
        ),
    ),
    "renewed-after-the-close": (
        Edit(_SESSION + "_keep", "while self._closed is None:", "while True:"),
    ),
    "renewed-after-the-loss": (
        Edit(_SESSION + "_keep", "life is None or life.reason is not None", "life is None"),
    ),
    "cleaning-up-delays-renewal": (
        Edit(
            _SESSION + "_keep",
            'self._cleaner = self.runtime.spawn(self._clean, "cleanup")',
            "await self._clean()",
        ),
    ),
    "loss-not-told": (Edit(_SESSION + "lose", "lease.end(reason)", "pass"),),
    "loss-told-twice": (
        Edit(_LEASE + "end", "if self._ended:", "if False:"),
        Edit(_SESSION + "lose", "if life.reason is not None:\n            return", "pass"),
        Edit(
            _SESSION + "lose",
            "leases, life.leases = life.leases, set()",
            "leases = set(life.leases)",
        ),
    ),
    "released-lease-stays-with-the-session": (
        Edit(_LEASE + "_forget", "session.drop(self._life, self)", "pass"),
    ),
    # -- the grant ---------------------------------------------------------------
    "granted-after-the-session-died": (
        Edit(
            _SESSION + "hold",
            "if life.reason is None and self.now() < life.deadline:",
            "if True:",
        ),
    ),
    "granted-without-being-first": (
        Edit("tenure._verdicts:granted", "roll.rank < width", "roll.rank <= width"),
    ),
    "unknown-taken-as-success": (
        Edit(
            _LOCK + "_queue",
            "budget = session.ttl if wait else session.ttl / 3",
            "return self._lease_type(session, life, ticket, self.name, 10**6, id, None, roster, 1)",
        ),
    ),
    "time-out-ignored": (
        Edit(_WAIT + "granted", "if until is not None and now >= until:", "if False:"),
    ),
    "no-look-without-a-wake-up": (
        Edit(
            _WAIT + "granted",
            "self._wake.wait(now + nap if until is None else min(now + nap, until))",
            "self._wake.wait(until)",
        ),
    ),
    # -- what an acquire leaves behind ---------------------------------------------
    "unknown-taken-as-failure": (
        Edit(_LOCK + "_queue", "if not given and id:", "if not given and id and sure:"),
    ),
    "time-out-leaves-the-claim": (
        Edit(
            _LOCK + "_queue",
            "if not given and id:",
            "if not given and id and mine is not None:",
        ),
    ),
    "cancelled-acquire-leaves-the-claim": (
        Edit(
            _LOCK + "_queue",
            "if not given and id:",
            "if not given and id and not __import__('sys').exc_info()[0]:",
        ),
    ),
    "withdrawal-can-be-cancelled": (
        Edit(
            _LOCK + "_queue",
            "await session.runtime.finish(self._withdraw(life, id, sure))",
            "await self._withdraw(life, id, sure)",
        ),
    ),
    "failed-withdrawal-forgotten": (
        Edit(_LOCK + "_withdraw", "session.owe(life, self.roster, id, self.width)", "pass"),
    ),
    "late-duplicate-forgotten": (
        Edit(_LOCK + "_queue", "lease.unsure = not sure", "lease.unsure = False"),
    ),
    "debt-paid-only-once": (
        Edit(
            _SESSION + "_pay",
            "life.reason is not None or self.runtime.now() >= until",
            "True",
        ),
    ),
    "debt-paid-in-vain": (
        Edit(_SESSION + "_pay", "continue", "pass"),
        Edit(
            _SESSION + "_pay",
            "life.reason is not None or self.runtime.now() >= until",
            "True",
        ),
    ),
    "ticket-kept-after-failure": (Edit(_LOCK + "_take", "session.gates.leave(ticket)", "pass"),),
    # -- the release -------------------------------------------------------------
    "release-forgets-before-it-succeeded": (
        Edit(_LEASE + "_release", "session.owe(life, roster, id, width)", "pass"),
    ),
    "unknown-release-taken-as-done": (
        Edit(
            _LEASE + "_release",
            "except ConnectionError:",
            "except ConnectionError:\n                return self._forget()",
        ),
    ),
    "release-withdraws-the-head": (
        Edit(_STORE + "withdraw", "if claim.id == id and claim.session == session:", "if True:"),
    ),
    "release-withdraws-the-head-of-the-document": (
        Edit(
            _DOCUMENT + "withdraw",
            '[each for each in document["claims"] if each[0] != id]',
            'document["claims"][1:]',
        ),
    ),
    # -- the local gate ------------------------------------------------------------
    "gate-not-handed-over": (Edit(_GATES + "leave", "self._advance(ticket.name, gate)", "pass"),),
    "gate-last-come-first-served": (
        Edit(_GATES + "_advance", "gate.queue.popleft()", "gate.queue.pop()"),
    ),
    # -- the document rung -----------------------------------------------------------
    "roster-saved-without-compare": (
        Edit(
            _DOCUMENT + "save_for",
            'await self.save("roster", roster, document, version)',
            'await self.save("roster", roster, document, (await self.load("roster", roster))[1])',
        ),
    ),
    "guess-believed-although-it-was-not-saved": (
        Edit(
            _DOCUMENT + "_change",
            "session, guarded):\n                return changed\n        stored",
            "session, guarded) or True:\n                return changed\n        stored",
        ),
    ),
    "buried-too-early": (
        Edit(_DOCUMENT + "_alive", 'document["ttl"] * DRIFT', 'document["ttl"] / 2'),
    ),
    "buried-although-it-was-renewed": (
        Edit(_DOCUMENT + "_alive", "seen is None or seen[0] != version", "seen is None"),
    ),
    "document-last-come-first-served": (
        Edit(
            _DOCUMENT + "claim",
            '"claims": [*claims, entry]',
            '"claims": [*claims[:1], entry, *claims[1:]]',
        ),
    ),
    "document-entered-twice": (
        Edit(_DOCUMENT + "claim", "if any(each[0] == id for each in claims) or (", "if ("),
    ),
    "document-token-restarts": (
        Edit(
            _DOCUMENT + "claim",
            'token = document["token"] + 1',
            'token = document["token"] + 1 if claims else 1',
        ),
    ),
    "document-token-does-not-rise": (
        Edit(
            _DOCUMENT + "claim", 'token = document["token"] + 1', 'token = document["token"] or 1'
        ),
    ),
    # -- readers and writers -----------------------------------------------------------
    "reader-granted-beside-a-writer": (
        Edit("tenure.testing._sim_stores:_ahead", "if not each.shared", "if False"),
    ),
    "reader-granted-beside-a-writer-of-the-document": (
        Edit("tenure.drivers.document:_ahead", "if not each[5]", "if False"),
    ),
    "writer-granted-beside-a-reader": (
        Edit("tenure.testing._sim_stores:_ahead", "if shared else claims", "if True else claims"),
    ),
    "writer-granted-beside-a-reader-of-the-document": (
        Edit("tenure.drivers.document:_ahead", "if shared else claims", "if True else claims"),
    ),
    "waiting-writer-overtaken-at-the-gate": (
        Edit(_GATES + "enter_now", "if gate.queue or not gate.admits(ticket):", "if False:"),
    ),
    "dead-writer-before-a-reader-never-buried": (
        Edit(
            _DOCUMENT + "_dead",
            "checked += [each for each in left[:mine] if not each[5]][-1:]",
            "pass",
        ),
    ),
    # -- semaphores ----------------------------------------------------------------
    "semaphore-of-one-more": (
        Edit(
            "tenure._recipes.semaphore:SemaphoreRecipe._noted", "return limit", "return limit + 1"
        ),
    ),
    "smaller-limit-not-noticed": (
        Edit(_LOCK + "_queue", "await self._ask(life, give_up)", "self.width"),
        Edit(_WAIT + "granted", "await self._ask(life, until)", "self._width"),
    ),
    "dead-claim-in-the-middle-never-buried": (
        Edit(_DOCUMENT + "_dead", "checked = left[:width]", "checked = left[:1]"),
    ),
    "permit-keeps-the-gate": (
        Edit(
            "tenure._recipes.semaphore:SemaphoreRecipe.acquire",
            "self._session.gates.leave(lease._ticket)",
            "pass",
        ),
        Edit(_LEASE + "_forget", "session.gates.leave(self._ticket)", "pass"),
    ),
    # -- elections -----------------------------------------------------------------
    "term-shown-before-it-is-held": (
        Edit(
            _ELECTION + "_elected",
            "term = await lock.acquire(until)",
            "life = await self._session.life(); await self._session.driver.claim("
            "life.id, self.board, life.next_id(), '{\"token\": 0}', None); "
            "term = await lock.acquire(until)",
        ),
    ),
    "leader-still-shown-after-resigning": (
        Edit(_POST + "_release", "await self._take_down()", "self._claim = None"),
    ),
    "late-post-forgotten": (Edit(_POST + "_put_up", "self._claim_unsure = True", "pass"),),
    "candidacy-left-behind": (
        Edit(
            "tenure._recipes.candidates:Entry.leave",
            "await self._session.runtime.finish(self._withdraw(life, id))",
            "pass",
        ),
    ),
    "leader-told-twice": (
        Edit(_BOARD + "change", "if found != self.leader or not self._told:", "if True:"),
    ),
    "only-the-first-leader-told": (Edit(_BOARD + "change", "found != self.leader or not", "not"),),
    "earlier-leader-told-again": (
        Edit(_BOARD + "_newest", "durable and found.token < self._token", "False"),
        Edit(
            _POST + "_take_down",
            "await session.retry(life, withdraw, None, session.ttl / 3)",
            "raise",
        ),
    ),
    # -- groups --------------------------------------------------------------------
    "group-deleted-under-a-member": (
        Edit(
            _GROUP + "_settle",
            "whole = found is not None and not _marked(found)",
            "whole = found is not None",
        ),
    ),
    "watcher-loses-a-leave": (
        Edit(
            "tenure._recipes.members:Members._differences",
            "if now is None or now.token != info.token:",
            "if now is not None and now.token != info.token:",
        ),
    ),
    "watcher-loses-a-change": (
        Edit(
            "tenure._recipes.members:Members._differences",
            "return gone + changed + joined",
            "return gone + joined",
        ),
    ),
    "watcher-told-twice": (
        Edit(
            "tenure._recipes.groupwatch:GroupWatch._look",
            "known, self._known = self._known, members",
            "known = self._known",
        ),
    ),
    "watcher-without-a-look-of-its-own": (
        Edit(
            "tenure._recipes.watch:RosterWatch.wait",
            "look if until is None else min(look, until)",
            "until",
        ),
    ),
    **TRIALS_MUTANTS,
    # -- the server ------------------------------------------------------------------
    "roster-last-come-first-served": (
        Edit(_STORE + "place", "claims.append(claim)", "claims.insert(1, claim)"),
    ),
    "roster-entered-twice": (
        Edit(_STORE + "_known", "any(claim.id == id for claim in claims)", "False"),
    ),
    "roster-token-restarts": (
        Edit(
            _STORE + "_draw", "self._token += 1", "self._token = self._token + 1 if claims else 1"
        ),
    ),
    "server-forgets-to-remove-the-dead": (Edit(_STORE + "end", "self._remove(claim)", "pass"),),
    "server-evicts-too-early": (
        Edit(_STORE + "renew", "self._ttl[session] / self._rate", "self._ttl[session] / 2"),
    ),
}
"""By name, the edits that make the mutant."""

KINDS: dict[str, Kind] = {
    "deadline-from-the-reply-to-start": "rwlock",
    "deadline-from-the-reply-to-renew": "rwlock",
    "no-margin-for-drift": "rwlock",
    "failed-renewal-taken-as-success": "lock",
    "time-out-ignored": "lock",
    "withdrawal-can-be-cancelled": "lock",
    "late-duplicate-forgotten": "lock",
    "debt-paid-only-once": "lock",
    "renewed-after-the-close": "lock",
    "waiting-writer-overtaken-at-the-gate": "rwlock",
    "late-post-forgotten": "election",
    "earlier-leader-told-again": "election",
    "group-deleted-under-a-member": "group",
    **TRIALS_KINDS,
}
"""Of mutants that are found too rarely among all schedules: what the clients are to ask for."""


@contextmanager
def mutated(name: str) -> Iterator[None]:
    """Break the core in one way, for as long as the block runs."""
    undo: list[tuple[Any, str, Any]] = []
    try:
        for edit in MUTANTS[name]:
            _apply(name, edit, undo)
        yield
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)


def _apply(name: str, edit: Edit, undo: list[tuple[Any, str, Any]]) -> None:
    module_name, _, path = edit.where.partition(":")
    module = importlib.import_module(module_name)
    getter = path.endswith(".fget")
    *owners, attribute = path.removesuffix(".fget").split(".")
    owner: Any = module
    for each in owners:
        owner = getattr(owner, each)
    original = inspect.getattr_static(owner, attribute)
    changed = _recompiled(name, edit, original.fget if getter else original, vars(module))
    undo.append((owner, attribute, original))
    setattr(owner, attribute, property(changed) if getter else changed)


def _recompiled(name: str, edit: Edit, function: Any, world: dict[str, Any]) -> Any:
    # An earlier edit of the same mutant has no file, so it carries its source with it.
    source = getattr(function, "mutant_source", None) or textwrap.dedent(
        inspect.getsource(function)
    )
    if source.count(edit.old) != 1:
        raise LookupError(
            f"the mutant {name!r} must be written anew: {source.count(edit.old)} times "
            f"{edit.old!r} in {edit.where}"
        )
    lines = source.replace(edit.old, edit.new)
    flags = annotations.compiler_flag
    made: dict[str, Any] = {}
    exec(compile(lines.replace("@property\n", ""), f"<{name}>", "exec", flags, True), world, made)
    changed = made[function.__name__]
    changed.mutant_source = lines
    return changed
