"""The scripts that the masters run for `lock=redlock`; see `_redis_redlock` for their keys."""

from __future__ import annotations

from ..wires.redis import Script

_LIVE = """
local function live(held)
  local session, number = string.match(held, '^(%S+) %S+ (%S+)')
  local value = redis.call('GET', prefix .. 's:' .. session)
  return value and string.match(value, '^%S+') == number and value
end
"""

ENTER = Script(
    """
local held = redis.call('GET', KEYS[1])
if held and tonumber(string.match(held, '^%d+')) > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
"""
)
"""KEYS: session. ARGV: the number, the rest of the value, the TTL. Returns 0 if the session has
been entered under a greater number: then this call was under way for long."""

RENEW = Script(
    """
local held = redis.call('GET', KEYS[1])
if not held then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return tonumber(string.match(held, '^%d+'))
"""
)
"""KEYS: session. ARGV: the TTL. Returns the session's number, or -1 if it is not known."""

LOCK = Script(
    f"""
local mine, prefix, roster = ARGV[1], ARGV[4], KEYS[4]
{_LIVE}
local session = redis.call('GET', KEYS[2])
if not session then return 'unknown' end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
for _, claim in ipairs(redis.call('ZRANGE', roster, 0, 99)) do
  if redis.call('EXISTS', prefix .. 's:' .. string.match(claim, '^[%w.]+')) == 1 then
    return 'roster'
  end
end
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #mine) ~= mine and live(held) then return 'taken' end
local last, token = tonumber(redis.call('GET', KEYS[3]) or 0), tonumber(ARGV[2])
if token <= last and ARGV[5] == '' then return last end
if token > last then redis.call('SET', KEYS[3], ARGV[2]) end
local number = string.match(session, '^%S+')
redis.call('SET', KEYS[1], mine .. number .. ' ' .. ARGV[2])
return 'granted ' .. number
"""
)
"""KEYS: lock, session, last token, the roster of that name. ARGV: what the lock's key begins
with, the token, the TTL, the prefix, and something if it is a vote that was lost. Returns a
word, followed by the session's number if it is a vote; or the last token where that is not less."""

UNLOCK = Script(
    """
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, #ARGV[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
)

LOOK = Script(
    f"""
local prefix = ARGV[1]
{_LIVE}
local held = redis.call('GET', KEYS[1])
local value = held and live(held)
return value and {{held, value}}
"""
)
