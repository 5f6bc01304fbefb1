-- The part that all scripts share: the server's time, and that of a key. Every number is an integer below 2^53, which is
-- exact in Lua; times are in microseconds. The reply to hits is the server's time as TIME returns it, then allowed,
-- remaining, retry_after, reset_after and delay for each policy of each, all as integers of eight bytes, which are
-- faster to write and to read than digits.

local NEVER = -1
local RESET = -2  -- a cost with which the key is deleted, and then looked at
local MAX_LAG = 1000000  -- a clock that lags by more has stepped back; see ratelab.clock.monotonic

local call, pcall, format, pack = redis.call, redis.pcall, string.format, struct.pack
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]

-- A key that holds anything else than a state, because another program has written it, counts as new.
local function is_other_type(value)
  return type(value) == 'table' and string.find(value.err, 'WRONGTYPE', 1, true) ~= nil
end

-- Return the shift of a key, its time now, and whether the clock has stepped back.
local function advance(shift, last)
  local lag = last - clock - shift
  if lag > MAX_LAG then return last - clock, last, true end
  return shift, lag > 0 and last or clock + shift, false
end
