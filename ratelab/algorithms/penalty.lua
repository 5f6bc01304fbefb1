-- A penalty for keys that are denied too often, around the `step` of an algorithm above. PENALTY holds `after`,
-- `within`, `length`, the growth as a fraction, and `at_most`. The state has two parts: that of the algorithm, and after
-- a bar the end and the length of the latest penalty, and the times of the latest denials, the newest first.
local AFTER, WITHIN, LENGTH, GROWTH, DIVISOR, AT_MOST = _G.unpack(PENALTY)
local MAX_CHARS = 17  -- of a number, with a sign
local penalty_of_key, inner_step = {}, step

local function read_with_penalty(key)
  penalty_of_key = {}
  local value = pcall('GET', key)
  if type(value) == 'string' then
    local shift, last, a, b, rest = string.match(value, '^(%d+) (%d+) (%-?%d+) ?(%-?%d*)|([%d ]*)$')
    if not last or max(#shift, #last, #a, #b) > MAX_CHARS then return end
    for number in string.gmatch(rest, '%d+') do
      if #number > MAX_CHARS then return end
      penalty_of_key[#penalty_of_key + 1] = tonumber(number)
    end
    if #penalty_of_key == AFTER + 1 then return shift, last, a, b end
    penalty_of_key = {}
  elseif value and not is_other_type(value) then
    call('GET', key)  -- raises the error
  end
end

local function write_with_penalty(key, expiry, shift, now, a, b, penalty)
  local state = format(b and '%.0f %.0f %.0f %.0f|' or '%.0f %.0f %.0f|', shift, now, a, b)
  for i = 1, #penalty do state = state .. format('%.0f ', penalty[i]) end
  call('SET', key, state, 'PX', expiry)
end

local function get_penalty(now)
  local times = {}
  for i = 1, AFTER - 1 do times[i] = penalty_of_key[i + 2] or now - WITHIN end
  return penalty_of_key[1] or now, penalty_of_key[2] or 0, times
end

local function step_with_penalty(now, cost, last, a, b, key)
  if cost < 0 then return inner_step(now, 0, last, a, b, key) end  -- looks at the quota alone
  local finish, length, times = get_penalty(now)
  local allowed, remaining, retry, reset, delay, x, y = inner_step(now, cost, last, a, b, key)
  local counted = false
  if now < finish then
    if allowed and cost > 0 then
      local _
      _, _, _, reset, _, x, y = inner_step(now, 0, last, a, b, key)
    end
    allowed, remaining, delay = cost == 0, 0, 0
    if allowed then retry = 0 elseif retry ~= NEVER then retry = max(retry, finish - now) end
  elseif not allowed and cost > 0 and retry ~= NEVER then
    counted = true
    table.insert(times, 1, now)
    if now - times[AFTER] < WITHIN then
      local known = length > 0 and now < finish + length
      length = known and min(floor(length * GROWTH / DIVISOR), AT_MOST) or LENGTH
      finish, remaining, retry = now + length, 0, max(retry, length)
      for i = 1, AFTER do times[i] = now - WITHIN end
    end
    times[AFTER] = nil
  end
  if length > 0 then reset = max(reset, finish + length - now) end
  if times[1] then reset = max(reset, times[1] + WITHIN - now) end
  return allowed, remaining, retry, reset, delay, x, y, { finish, length, _G.unpack(times) }, counted
end

local inner_charge = charge

local function charge(now, cost, at, a, b, key)
  local finish, length, times = get_penalty(now)
  a, b = inner_charge(now, cost, at, a, b, key)
  return a, b, { finish, length, _G.unpack(times) }
end

return decide(step_with_penalty, read_with_penalty, write_with_penalty)
