"""The scripts that run inside Redis: each is one step that nobody can interleave with.

The keys of a namespace `ns`, under the prefix `tenure:{ns}:` (one hash slot):

- `s:<session>` holds the owner's name and expires with the session;
- `r:<roster>` is a sorted set of members `<session> <claim id>`, scored by token;
- `b:<roster>` is a hash from member to body, for the bodies that are not empty;
- `n` is the last token that was given.

A claim is alive as long as its session's key is, so one renewal keeps all of a
session's claims. Dead claims are buried by whoever meets them. The channel
`w:<mailbox>` carries the ids of claims that moved up; a session's name begins with its
mailbox and a dot.
"""

from __future__ import annotations

from ..wires.redis import Script

# Every loop over claims is bounded by this, so that no script can hold up the server.
_MOST_LOOKED_AT = 1000

# Removes the claims of dead sessions from place `at` on, until `want` living ones stand
# there; returns how many were removed. `tell` wakes the claim that moved up.
_BURY = f"""
local function live(member)
  return redis.call('EXISTS', prefix .. 's:' .. string.match(member, '^%S+')) == 1
end
local function bury(roster, bodies, at, want)
  local gone, budget = 0, {_MOST_LOOKED_AT}
  while want > 0 and budget > 0 do
    local batch = redis.call('ZRANGE', roster, at, at + math.min(want, budget) - 1)
    if #batch == 0 then break end
    for _, member in ipairs(batch) do
      budget = budget - 1
      if live(member) then
        at = at + 1
        want = want - 1
      else
        redis.call('ZREM', roster, member)
        redis.call('HDEL', bodies, member)
        gone = gone + 1
      end
    end
  end
  return gone
end
local function tell(member)
  -- A wake-up is a hint: a user who may not publish can still release.
  redis.pcall('PUBLISH', prefix .. 'w:' .. string.match(member, '^[^.]+'),
              string.match(member, ' (.*)$'))
end
local function bury_head(roster, bodies, member)
  if bury(roster, bodies, 0, 1) > 0 then
    local first = redis.call('ZRANGE', roster, 0, 0)[1]
    if first and first ~= member then tell(first) end
  end
end
"""

# The roll as seen from `member`. Dead claims ahead are buried as far as the look goes:
# all of them from a place near the head; farther back the head, a window at a random
# place (so that every dead claim is met in the end) and whatever stands directly ahead.
_LOOK = """
local function look(roster, bodies, member)
  bury_head(roster, bodies, member)
  local token = redis.call('ZSCORE', roster, member)
  local rank, before = 0, false
  if token then
    rank = redis.call('ZRANK', roster, member)
    if rank <= 64 then
      bury(roster, bodies, 0, rank)
    else
      bury(roster, bodies, 1 + redis.call('TIME')[2] % (rank - 64), 64)
    end
    for _ = 1, MOST do
      rank = redis.call('ZRANK', roster, member)
      if rank == 0 or bury(roster, bodies, rank - 1, 1) == 0 then break end
    end
    if rank > 0 then before = redis.call('ZRANGE', roster, rank - 1, rank - 1)[1] end
  end
  local head = redis.call('ZRANGE', roster, 0, 0, 'WITHSCORES')
  if not head[1] then return {token, rank, before, false, false, false, false, false} end
  local owner = redis.call('GET', prefix .. 's:' .. string.match(head[1], '^%S+'))
  local texts = redis.call('HMGET', bodies, head[1], member)
  return {token, rank, before, head[1], head[2], owner, texts[1], texts[2]}
end
""".replace("MOST", str(_MOST_LOOKED_AT))

# KEYS: roster, bodies, session, last token. ARGV: prefix, member, body, width (0: any).
# Returns the token alone if the claim stands at the head, -1 if the session is dead, or
# the roll as `look` gives it.
#
# A token is the server's time in microseconds, or one more than the last where that is
# greater: so tokens go on rising also when the data is lost in a restart, and when a
# replica that lags behind takes the master's place.
CLAIM = Script(
    """
local roster, session = KEYS[1], KEYS[3]
local prefix, member, body = ARGV[1], ARGV[2], ARGV[3]
local function enter()
  local now = redis.call('TIME')
  local token = now[1] * 1000000 + now[2]
  local last = tonumber(redis.call('GET', KEYS[4]) or 0)
  if last >= token then token = last + 1 end
  redis.call('SET', KEYS[4], token)
  redis.call('ZADD', roster, token, member)
  if body ~= '' then redis.call('HSET', KEYS[2], member, body) end
  return token
end
local known = redis.call('EXISTS', session, session, roster)
if known < 2 then return -1 end
if known == 2 then return enter() end
"""
    + _BURY
    + _LOOK
    + """
local bodies, width = KEYS[2], tonumber(ARGV[4])
if not redis.call('ZSCORE', roster, member) then
  bury_head(roster, bodies, member)
  if width > 1 then bury(roster, bodies, 0, width) end
  if width == 0 or redis.call('ZCARD', roster) < width then enter() end
end
return look(roster, bodies, member)
"""
)

# KEYS: roster, bodies, session. ARGV: prefix, member.
# A waiter whose own session is dead is not shown its claim: it must never be granted.
READ = Script(
    "local prefix = ARGV[1]"
    + _BURY
    + _LOOK
    + """
local alive = redis.call('EXISTS', KEYS[3]) == 1
return look(KEYS[1], KEYS[2], alive and ARGV[2] or '')
"""
)

# KEYS: roster, bodies. ARGV: prefix, member. Wakes the first living claim behind it.
WITHDRAW = Script(
    """
local roster, bodies, member = KEYS[1], KEYS[2], ARGV[2]
local two = redis.call('ZRANGE', roster, 0, 1)
if two[1] == member and not two[2] then
  redis.call('DEL', roster, bodies)
  return 1
end
local rank = redis.call('ZRANK', roster, member)
if not rank then return 0 end
redis.call('ZREM', roster, member)
redis.call('HDEL', bodies, member)
local prefix = ARGV[1]
"""
    + _BURY
    + """
bury(roster, bodies, rank, 1)
local behind = redis.call('ZRANGE', roster, rank, rank)[1]
if behind then tell(behind) end
return 1
"""
)

# KEYS: roster, bodies, session. ARGV: member, the body expected, the new body.
# Finding the new body is success as well: the reply to an earlier try may have been lost.
AMEND = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local body = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if body ~= ARGV[2] and body ~= ARGV[3] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
return 1
"""
)

# KEYS: rosters. ARGV: prefix. Returns those that have a living claim; buries what is dead.
LIVING = Script(
    "local prefix = ARGV[1]"
    + _BURY
    + """
local found = {}
for _, roster in ipairs(KEYS) do
  bury_head(roster, prefix .. 'b:' .. string.sub(roster, #prefix + 3), '')
  if redis.call('EXISTS', roster) == 1 then found[#found + 1] = roster end
end
return found
"""
)
