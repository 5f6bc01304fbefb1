-- What all algorithms share in a store: the server's time, a key's state and the reply. An algorithm's script follows it.
-- Every number is a whole one below 2^53, in which Lua is exact; times are microseconds.
-- KEYS are the keys to decide, ARGV the algorithm's parameters and then a cost for each key.
-- The reply is the server's time, then for each key allowed, remaining, retry_after, reset_after and delay.

local NEVER = -1
local PATIENCE = 1000000  -- a clock that lags by more than this has stepped back: see ratelab.clock.steady

local time = redis.call('TIME')
local clock = time[1] * 1000000 + time[2]
local parameters = {}
for i = 1, #ARGV - #KEYS do parameters[i] = tonumber(ARGV[i]) end

-- A state is `shift`, by which the key's time runs ahead of the server's, its `last` time, and the algorithm's numbers.
local function read(key)
  local numbers = {}
  for number in string.gmatch(redis.call('GET', key) or '', '%S+') do numbers[#numbers + 1] = tonumber(number) end
  return { shift = numbers[1] or 0, last = numbers[2], unpack(numbers, 3) }
end

local function write(key, state, expiry)
  local numbers = { string.format('%.0f %.0f', state.shift, state.last) }
  for _, number in ipairs(state) do numbers[#numbers + 1] = string.format('%.0f', number) end
  redis.call('SET', key, table.concat(numbers, ' '), 'PX', expiry)
end

-- `step(state, now, cost, key)` decides as the Python kernel does. What is denied, or costs nothing, changes no state.
local function decide(step, read, write)
  local reply = { string.format('%.0f', clock) }
  for i, key in ipairs(KEYS) do
    local cost, state = tonumber(ARGV[#parameters + i]), read(key)
    local now, last = clock + state.shift, state.last or 0
    local stepped_back = last - now > PATIENCE
    if stepped_back then state.shift = last - clock end
    if now < last then now = last end
    state.last = state.last or now
    local allowed, remaining, retry, reset, delay = step(state, now, cost, key)
    if stepped_back or allowed and cost > 0 then
      state.last = now
      local lag = now - state.shift - clock
      write(key, state, string.format('%.0f', math.max(1, math.ceil((reset + lag) / 1000))))
    end
    reply[i + 1] = string.format('%d %.0f %.0f %.0f %.0f', allowed and 1 or 0, remaining, retry, reset, delay)
  end
  return table.concat(reply, ' ')
end
