-- Keys of a limiter with plans: with each slot, the quota under which it was written. A state of another quota is
-- converted: the share of the burst that is used stays used, rounded up.
--
-- A value consists of a line for each slot that is not empty, a zero byte, and these slots. `TAGS` are the lines of the
-- policies: the name, the kind of algorithm, the burst, the limit, the period, and the parameters. `OWN` are the ends of
-- the keys of algorithms that store states by functions of their own. `rebuild` returns the functions of a kind; those
-- of a calendar have the windows of the policy now, or days without one, which only matter for windows yet to come. The
-- kind of an algorithm with a penalty has a colon, and that of another penalty another name; the penalty stays in force.

local LOOK_INSIDE = -1  -- a cost with which a step ignores its penalty
local converts = true  -- whether a state of another quota is converted; otherwise, its own quota is used
local BY_TAG, BY_NAME, steps = {}, {}, {}
for i = 1, #policies do
  BY_TAG[TAGS[i]], BY_NAME[string.match(TAGS[i], '^%S+')], steps[i] = i, i, policies[i].step
end

-- Return the functions of policy `i` for the quota of a line, its burst, limit and period, and whether it has a penalty.
local function parse(i, line)
  local kind, burst, limit, period, rest = string.match(line, '^%S+ (%S+) (%S+) (%S+) (%S+) ?(.*)$')
  local parameters = {}
  for parameter in string.gmatch(rest, '%S+') do parameters[#parameters + 1] = parameter end
  local has_penalty = string.find(kind, ':', 1, true)
  return rebuild(kind, parameters, policies[i]), tonumber(burst), tonumber(limit), tonumber(period), has_penalty
end

-- Use the quota of a line for policy `i`; return whether this is possible.
local function adopt(i, line)
  local old, burst = parse(i, line)
  local policy = policies[i]
  if not old or not old.charge or (old.read == read) ~= (policy.read == read) then return false end
  old.burst, policy.kernel, policy.read, policy.write, TAGS[i] = burst, old, old.read, old.write, line
  return true
end

-- Return the used cost of an old state, rounded up, its burst, and the shift and time of its key.
local function count_used(i, line, slot, key)
  local full, shift, last, a, b = unpack('>I8I8I8i8i8', slot)
  local old, burst, limit, period, keeps_penalty = parse(i, line)
  local shift, now = advance(shift, last)
  if not old then return burst, burst, shift, now end  -- an algorithm that this limiter does not know
  if old.read ~= read then
    shift, last, a, b = old.read(key)
    if not last then return 0, burst, 0, clock end
    shift, last, a, b = tonumber(shift), tonumber(last), tonumber(a), tonumber(b)
    shift, now = advance(shift, last)
  elseif now >= full then
    return 0, burst, shift, now
  end
  local allowed, remaining, _, reset = old.step(now, keeps_penalty and LOOK_INSIDE or 0, last, a, b, key)
  local used = burst - remaining
  if not allowed then used = max(used, ceil(reset * limit / period)) end
  if old.read ~= read and not keeps_penalty then call('DEL', key) end
  return used, burst, shift, now
end

-- Return the slot of policy `i` for a state of another quota, and write the state if the policy has its own key.
local function convert(i, line, slot, key)
  local policy, used, burst, shift, now = policies[i], count_used(i, line, slot, key)
  local cost = ceil(used * BURSTS[i] / burst)
  local keeps_penalty = string.find(TAGS[i], ':', 1, true)
  if cost == 0 and not keeps_penalty then return EMPTY end
  if policy.read ~= read then policy.read(key) end
  local step = steps[i]
  local _, remaining, _, reset, _, x, y, z = step(now, 0, now, nil, nil, key)
  if cost == 0 then
    if reset == 0 then
      call('DEL', key)
      return EMPTY
    end
  elseif policy.charge then
    x, y, z, reset = policy.charge(now, cost, now, x, y, key)
    if not reset then _, _, _, reset = step(now, 0, now, x, y, key) end
  else
    _, _, _, reset, _, x, y, z = step(now, min(cost, remaining), now, nil, nil, key)
  end
  local full = min(now + reset, 2 ^ 53 - 1)
  if policy.read ~= read then
    policy.write(key, format('%.0f', max(1, ceil((full - shift - clock) / 1000))), shift, now, x, y, z)
  end
  return pack('>I8I8I8i8i8', full, shift, now, x, y or 0)
end

-- Return a value as a slot for each policy, and whether a state was converted.
local function expand(value, key)
  local lines, rest = string.match(value or '', '^(.-)%z(.*)$')
  local prefix, found, number, converted = string.match(key, '^.-}'), {}, 0, false
  for line in string.gmatch(lines or '', '[^\n]+') do
    local slot = sub(rest, WIDTH * number + 1, WIDTH * (number + 1))
    if #slot < WIDTH or not string.match(line, '^%S+ %S+ %d+ %d+ %d+[%d ]*$') then break end  -- of another program
    local full, shift, last = unpack('>I8I8I8', slot)
    if full + shift + last >= 2 ^ 54 then break end
    local i = BY_TAG[line]
    if not i and not converts then
      local same = BY_NAME[string.match(line, '^%S+')]
      i = same and adopt(same, line) and same
    end
    if i then
      found[i] = slot
    else
      i, converted = BY_NAME[string.match(line, '^%S+')], true
      if i then found[i] = convert(i, line, slot, prefix .. OWN[i]) end
    end
    number = number + 1
  end
  local slots = ''
  for i = 1, #policies do
    if not found[i] and policies[i].read ~= read then call('DEL', prefix .. OWN[i]) end  -- of an unknown quota
    slots = slots .. (found[i] or EMPTY)
  end
  return slots, converted
end

local function shrink(value)
  local lines, slots = '', ''
  for i = 1, #policies do
    local slot = sub(value, WIDTH * (i - 1) + 1, WIDTH * i)
    if slot ~= EMPTY then lines, slots = lines .. TAGS[i] .. '\n', slots .. slot end
  end
  return lines .. '\0' .. slots
end
