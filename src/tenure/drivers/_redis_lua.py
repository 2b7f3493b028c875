"""The scripts that run inside Redis: each is one step that nobody can interleave with.

The keys of a namespace `ns`, under the prefix `tenure:{ns}:` (one hash slot):

- `s:<session>` holds the session's TTL in milliseconds, a space and the owner's name,
  and expires with the session;
- `r:<roster>` is a sorted set of members, scored by token: `<session> <claim id>`, or
  `<session>+<claim id>` if the claim is shared;
- `h:<roster>` has the shared ones among them once more, so that they can be counted;
- `b:<roster>` is a hash from member to body, for the bodies that are not empty;
- `d:<name>` is a record: a hash of its text and its version;
- `n` is the last token or version that was given;
- `m:<name>` is a lock that is held with `lock=redlock`, see `_redis_redlock`.

A claim is alive as long as its session's key is, so one renewal keeps all of a
session's claims. Dead claims are buried by whoever meets them. The channel
`w:<mailbox>` carries the ids of claims that moved up; a session's name begins with its
mailbox and a dot. Whenever a claim with a body comes, changes or goes, and whenever the
record is written, the channel `c:<roster>` carries an empty message.
"""

from __future__ import annotations

from ..wires.redis import Script

# No loop over claims makes more steps than this, so that no script can hold up the server;
# a census alone reads all that there are.
_MOST_LOOKED_AT = 10_000
_MOST_BURIED = 1000
# A reader far behind looks for dead claims ahead of it in so many places at a time.
_WINDOW = 64

# A token is the server's time in microseconds, or one more than the last where that is
# greater: so tokens go on rising also when the data is lost in a restart, and when a
# replica that lags behind takes the master's place.
_NEXT = """
  local now = redis.call('TIME')
  local token = now[1] * 1000000 + now[2]
  local last = tonumber(redis.call('GET', counter) or 0)
  if last >= token then token = last + 1 end
  redis.call('SET', counter, token)
"""

# Works on one `roster` under a `prefix`, and remembers what was removed: how many claims,
# the foremost place, whether one of them was not shared, and whether one had a body.
# Publishing may be refused: a user who may not publish can still release.
_ROSTER = f"""
local name = string.sub(roster, #prefix + 3)
local bodies, readers = prefix .. 'b:' .. name, prefix .. 'h:' .. name
local gone, foremost, writer_gone, public_gone = 0, false, false, false
local function is_shared(member)
  return string.find(member, '^[%w.]+%+') ~= nil
end
local function live(member)
  return redis.call('EXISTS', prefix .. 's:' .. string.match(member, '^[%w.]+')) == 1
end
local function remove(member, place)
  redis.call('ZREM', roster, member)
  if redis.call('HDEL', bodies, member) == 1 then public_gone = true end
  if is_shared(member) then redis.call('ZREM', readers, member) else writer_gone = true end
  gone = gone + 1
  foremost = math.min(place, foremost or place)
end
local function bury(place, want)
  -- Removes the dead from a place on, until so many living ones stand there.
  local budget = math.min(math.max(want, {_MOST_BURIED}), {_MOST_LOOKED_AT})
  while want > 0 and budget > 0 do
    local batch = redis.call('ZRANGE', roster, place, place + math.min(want, budget) - 1)
    if #batch == 0 then break end
    for _, member in ipairs(batch) do
      budget = budget - 1
      if live(member) then
        place = place + 1
        want = want - 1
      else
        remove(member, place)
      end
    end
  end
end
local function writer(k)
  -- The place of the k-th claim that is not shared; there must be so many.
  local low, high = k - 1, redis.call('ZCARD', roster) - 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local token = redis.call('ZRANGE', roster, middle, middle, 'WITHSCORES')[2]
    if middle + 1 - redis.call('ZCOUNT', readers, '-inf', token) < k then
      low = middle + 1
    else
      high = middle
    end
  end
  return low, redis.call('ZRANGE', roster, low, low)[1]
end
local function fence(width)
  -- The place from which on no shared claim is granted; nil if all of them are.
  local k = 1
  for _ = 1, {_MOST_BURIED} do
    local writers = redis.call('ZCARD', roster) - redis.call('ZCARD', readers)
    if writers < k then return nil end
    local place, member = writer(k)
    if not live(member) then
      remove(member, place)
    elseif k == width then
      return place
    else
      k = k + 1
    end
  end
  return 0
end
local function tell(member)
  redis.pcall('PUBLISH', prefix .. 'w:' .. string.match(member, '^%w+'),
              string.match(member, '^[%w.]+.(.*)$'))
end
local function settle(width, mine)
  -- Wakes whoever came under the width by what was removed, and those who watch.
  if gone == 0 then return end
  if foremost < width then
    local first = math.max(foremost, width - gone)
    bury(first, width - first)
    for _, member in ipairs(redis.call('ZRANGE', roster, first, width - 1)) do
      if member ~= mine and not is_shared(member) then tell(member) end
    end
  end
  if writer_gone and redis.call('EXISTS', readers) == 1 then
    local stop = fence(width) or redis.call('ZCARD', roster)
    stop = math.min(stop, foremost + {_MOST_LOOKED_AT})
    if foremost < stop then
      for _, member in ipairs(redis.call('ZRANGE', roster, foremost, stop - 1)) do
        if member ~= mine and is_shared(member) then tell(member) end
      end
    end
  end
  if public_gone then redis.pcall('PUBLISH', prefix .. 'c:' .. name, '') end
end
"""

# The roll as seen from `mine`. The dead are buried as far as the look goes: among the first
# `width`; then among all that stand ahead if they are few, or else in a window at a random
# place, so that every dead claim is met in the end; and whatever stands directly ahead.
_LOOK = f"""
local function ahead_of_shared(mine, token, width)
  fence(width)
  for _ = 1, {_MOST_BURIED} do
    local rank = redis.call('ZRANK', roster, mine)
    rank = rank - redis.call('ZCOUNT', readers, '-inf', '(' .. token)
    if rank == 0 then return 0, false end
    local place, before = writer(rank)
    if live(before) then return rank, before end
    remove(before, place)
  end
  return 1, false
end
local function ahead(mine, width)
  local span = redis.call('ZRANK', roster, mine) - width
  if span > {_WINDOW} then
    bury(width + redis.call('TIME')[2] % (span - {_WINDOW} + 1), {_WINDOW})
  else
    bury(width, span)
  end
  local rank, before
  for _ = 1, {_MOST_BURIED} do
    rank = redis.call('ZRANK', roster, mine)
    if rank == 0 then return 0, false end
    before = redis.call('ZRANGE', roster, rank - 1, rank - 1)[1]
    if live(before) then break end
    remove(before, rank - 1)
  end
  return rank, before
end
local function look(mine, width, buried)
  if not buried then bury(0, width) end
  local token = redis.call('ZSCORE', roster, mine)
  local rank, before, shared = 0, false, is_shared(mine)
  if token and shared then
    rank, before = ahead_of_shared(mine, token, width)
  elseif token then
    rank, before = ahead(mine, width)
  end
  settle(width, mine)
  local head = redis.call('ZRANGE', roster, 0, 0, 'WITHSCORES')
  if not head[1] then return {{token, rank, before, 0, false, false, false, false, false}} end
  local session = redis.call('GET', prefix .. 's:' .. string.match(head[1], '^[%w.]+'))
  local texts = redis.call('HMGET', bodies, head[1], mine)
  shared = shared and 1 or 0
  return {{token, rank, before, shared, head[1], head[2], session, texts[1], texts[2]}}
end
"""


def _claim(enter: str, holders: str, room: str) -> Script:
    """The script to enter claims of one mode.

    `enter` is what else it takes to enter one, `holders` a pattern for what follows the
    session's name in a claim that would stand in its way, and `room` decides.
    """
    return Script(
        f"""
local roster, session, counter = KEYS[1], KEYS[3], KEYS[4]
local prefix, mine, body = ARGV[1], ARGV[2], ARGV[3]
local function enter()
{_NEXT}
  redis.call('ZADD', roster, token, mine)
  {enter}
  if body ~= '' then
    redis.call('HSET', KEYS[2], mine, body)
    redis.pcall('PUBLISH', prefix .. 'c:' .. string.sub(roster, #prefix + 3), '')
  end
  return token
end
local mutex = prefix .. 'm:' .. string.sub(roster, #prefix + 3)
local known = redis.call('EXISTS', session, session, roster, mutex, mutex, mutex, mutex)
if known > 3 then
  -- With `lock=redlock` the same lock is another thing, and the two must not be mixed.
  local other = string.match(redis.call('GET', mutex), '^%S+')
  if redis.call('EXISTS', prefix .. 's:' .. other) == 1 then return -2 end
  known = known - 4
end
if known < 2 then return -1 end
if known == 2 then return enter() end
local width = tonumber(ARGV[4])
if width == 1 then
  -- The usual refusal, before all that it takes to bury somebody.
  local head = redis.call('ZRANGE', roster, 0, 0, 'WITHSCORES')
  local holder = string.match(head[1], '^([%w.]+){holders}')
  local value = holder and redis.call('GET', prefix .. 's:' .. holder)
  if value and not redis.call('ZSCORE', roster, mine) then
    local text = redis.call('HGET', KEYS[2], head[1])
    return {{false, 0, false, 0, head[1], head[2], value, text, false}}
  end
end
{_ROSTER}
{_LOOK}
local buried = false
if not redis.call('ZSCORE', roster, mine) then
  local room = width == 0
  if not room then {room} end
  if room then enter() end
end
return look(mine, math.max(width, 1), buried)
"""
    )


# KEYS: roster, bodies, session, last token. ARGV: prefix, member, body, width (0: any).
# Returns the token alone if the roster was empty, -1 if the session is dead, -2 if the name
# is locked with `lock=redlock`, or the roll as `look` gives it.
CLAIM = _claim(
    enter="",
    holders="[ +]",
    room="""
    room = redis.call('ZCARD', roster) < width
    if not room then
      bury(0, width)
      buried = true
      room = redis.call('ZCARD', roster) < width
    end
""",
)
CLAIM_SHARED = _claim(
    enter="redis.call('ZADD', prefix .. 'h:' .. string.sub(roster, #prefix + 3), token, mine)",
    holders=" ",
    room="room = fence(width) == nil",
)

# What the claim is called in the sorted set, if it is shared.
_SHARED_NAME = "string.gsub(mine, ' ', '+', 1)"

# KEYS: roster, bodies, session. ARGV: prefix, member as if it were not shared, width.
# Returns the roll, and what the session's key holds. A waiter whose own session is dead is
# not shown its claim: it must never be granted.
READ = Script(
    f"""
local roster, prefix, mine = KEYS[1], ARGV[1], ARGV[2]
local value = redis.call('GET', KEYS[3])
local head = redis.call('ZRANGE', roster, 0, 0, 'WITHSCORES')
if value and head[1] == mine then
  local text = redis.call('HGET', KEYS[2], mine)
  return {{{{head[2], 0, false, 0, mine, head[2], value, text, text}}, value}}
end
{_ROSTER}
{_LOOK}
if not value then
  mine = ''
elseif not redis.call('ZSCORE', roster, mine) then
  mine = {_SHARED_NAME}
end
return {{look(mine, tonumber(ARGV[3])), value}}
"""
)

# KEYS: roster, bodies. ARGV: prefix, member as if it were not shared, width if not 1.
WITHDRAW = Script(
    f"""
local roster, prefix, mine = KEYS[1], ARGV[1], ARGV[2]
local two = redis.call('ZRANGE', roster, 0, 1)
if two[1] == mine then
  local public
  if two[2] then
    -- The usual handing over, before all that it takes to bury somebody.
    local mailbox, rest, id = string.match(two[2], '^(%w+)(%.%w+) (.*)$')
    if mailbox and not ARGV[3]
       and redis.call('EXISTS', prefix .. 's:' .. mailbox .. rest) == 1 then
      redis.call('ZREM', roster, mine)
      public = redis.call('HDEL', KEYS[2], mine) == 1
      redis.pcall('PUBLISH', prefix .. 'w:' .. mailbox, id)
      two = nil
    end
  else
    public = redis.call('DEL', roster, KEYS[2]) == 2
    two = nil
  end
  if public then
    redis.pcall('PUBLISH', prefix .. 'c:' .. string.sub(roster, #prefix + 3), '')
  end
  if not two then return 1 end
end
local place = redis.call('ZRANK', roster, mine)
if not place then
  mine = {_SHARED_NAME}
  place = redis.call('ZRANK', roster, mine)
  if not place then return 0 end
end
{_ROSTER}
remove(mine, place)
settle(tonumber(ARGV[3] or 1), mine)
return 1
"""
)

# KEYS: roster, bodies, session. ARGV: member, the body expected, the new body, the channel.
# Finding the new body is success as well: the reply to an earlier try may have been lost.
AMEND = Script(
    """
if redis.call('EXISTS', KEYS[3]) == 0 then return 0 end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
local body = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if body == ARGV[3] then return 1 end
if body ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
end
redis.pcall('PUBLISH', ARGV[4], '')
return 1
"""
)

# KEYS: roster. ARGV: prefix. Returns members and tokens, the dead among them; the hash of
# the bodies; and for each session, in the order in which the members name them, what its
# key holds, or nothing if it is dead.
CENSUS = Script(
    f"""
local roster, prefix = KEYS[1], ARGV[1]
local claims = redis.call('ZRANGE', roster, 0, -1, 'WITHSCORES')
local number, keys = {{}}, {{}}
for at = 1, #claims, 2 do
  local session = string.match(claims[at], '^[%w.]+')
  if not number[session] then
    keys[#keys + 1] = prefix .. 's:' .. session
    number[session] = #keys
  end
end
local values, dead = {{}}, false
for at = 1, #keys, 500 do
  -- A few hundred at a time, since so many fit on Lua's stack.
  for _, value in ipairs(redis.call('MGET', unpack(keys, at, math.min(at + 499, #keys)))) do
    values[#values + 1] = value
    dead = dead or not value
  end
end
local texts = redis.call('HGETALL', prefix .. 'b:' .. string.sub(roster, #prefix + 3))
if dead then
{_ROSTER}
  for at = 1, #claims, 2 do
    if gone == {_MOST_BURIED} then break end
    if not values[number[string.match(claims[at], '^[%w.]+')]] then
      remove(claims[at], (at - 1) / 2 - gone)
    end
  end
  settle(1, '')
end
return {{claims, texts, values}}
"""
)

# KEYS: session. ARGV: the channels of the rosters where it has shown something.
END = Script(
    """
local ended = redis.call('DEL', KEYS[1])
for _, channel in ipairs(ARGV) do redis.pcall('PUBLISH', channel, '') end
return ended
"""
)

# KEYS: session. Returns the milliseconds that it has left, and what its key holds.
SEEN = Script("return {redis.call('PTTL', KEYS[1]), redis.call('GET', KEYS[1])}")

# KEYS: rosters. ARGV: prefix. Returns those that have a living claim; buries what is dead.
LIVING = Script(
    f"""
local prefix, found = ARGV[1], {{}}
for _, roster in ipairs(KEYS) do
{_ROSTER}
  bury(0, 1)
  settle(1, '')
  if redis.call('EXISTS', roster) == 1 then found[#found + 1] = roster end
end
return found
"""
)

# KEYS: record, last token. ARGV: channel, the version expected or nothing, the text unless
# the record is to be deleted. Returns the new version, or nothing if it was another.
RECORD = Script(
    f"""
local record, counter = KEYS[1], KEYS[2]
if (redis.call('HGET', record, 'version') or '') ~= ARGV[2] then return false end
{_NEXT}
if ARGV[3] then
  redis.call('HSET', record, 'text', ARGV[3], 'version', token)
else
  redis.call('DEL', record)
end
redis.pcall('PUBLISH', ARGV[1], '')
return token
"""
)
