-- What all algorithms share in a store: the server's time, a key's state and the reply. An algorithm's script follows it.
-- Every number is a whole one below 2^53, in which Lua is exact; times are microseconds.
-- KEYS are the keys to decide, ARGV the algorithm's parameters and then a cost for each key.
-- The reply is the server's time as it tells it, then for each key allowed, remaining, retry_after, reset_after and delay,
-- all as integers of eight bytes, which are made and read faster than their digits.

local NEVER = -1
local PATIENCE = 1000000  -- a clock that lags by more than this has stepped back: see ratelab.stores.memory.monotonic

local call, format, pack = redis.call, string.format, struct.pack
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local time = call('TIME')
local clock = time[1] * 1000000 + time[2]

-- A state is `shift`, by which the key's time runs ahead of the server's, its `last` time, and a number or two.
local function read(key)
  local value = call('GET', key)
  if value then return string.match(value, '(%d+) (%d+) (%d+) ?(%d*)') end
end

local function write(key, expiry, shift, now, a, b)
  local state = format(b and '%.0f %.0f %.0f %.0f' or '%.0f %.0f %.0f', shift, now, a, b)
  call('SET', key, state, 'PX', expiry)
end

-- `step(now, cost, last, a, b)` decides as the Python kernel does, by the state's time and numbers, which are nil for a new
-- key but for the time, and returns a decision's five fields and what to write. What is denied or free changes no state.
local function decide(step, read, write)
  local reply, count = pack('>i8i8', time[1], time[2]), #KEYS
  for i = 1, count do
    local key, cost = KEYS[i], tonumber(ARGV[#ARGV - count + i])
    local shift, last, a, b = read(key)
    local now, stepped = clock, false
    if last then
      shift, last, a, b = tonumber(shift), tonumber(last), tonumber(a), tonumber(b)
      stepped = last - clock - shift > PATIENCE
      if stepped then shift = last - clock end
      now = max(clock + shift, last)
    end
    local allowed, remaining, retry, reset, delay, a, b, c = step(now, cost, last or now, a, b, key)
    if allowed and cost > 0 or stepped then
      shift = shift or 0
      write(key, format('%.0f', max(1, ceil((reset + now - shift - clock) / 1000))), shift, now, a, b, c)
    end
    reply = reply .. pack('>i8i8i8i8i8', allowed and 1 or 0, remaining, retry, reset, delay)
  end
  return reply
end
