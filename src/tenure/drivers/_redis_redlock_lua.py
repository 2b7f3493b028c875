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
redis.call('SET', KEYS[1], mine .. string.match(session, '^%S+') .. ' ' .. ARGV[2])
return 'granted'
"""
)
"""KEYS: lock, session, last token, the roster of that name. ARGV: what the lock's key begins
with, the token, the TTL, the prefix, and something if it is a vote that was lost. Returns a
word, or the last token where that is not less."""

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
