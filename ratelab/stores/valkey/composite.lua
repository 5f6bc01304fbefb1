-- Several policies in one decision: try all, then take from all or from none.
--
-- `policies` are those of the limiter. A client has one key, which holds a slot for each policy: `full`, the time at
-- which the state is fully replenished, then shift, last, a and b as in `state.lua`, as integers of eight bytes. An
-- algorithm with its own `read` and `write` has a key of its own for each client. In a limiter with plans, it has a
-- slot, too, and `expand` and `shrink` convert the value of a key from and to its form in the store.
--
-- ARGV holds for each hit its layout and its costs. The layout has two characters for each policy, which number the
-- keys of the hit: that with its slot, and its own; `0` for none, so that `00` is a policy which is not asked. The costs
-- are one for all policies, or one for each. The reply has a row for each policy of each hit, -1 if it is not asked.
--
-- All this is one loop without functions, since a script creates its functions again for each call.

local ZERO = 48
local MAX_FULL = 2 ^ 53 - 1
local MAX_SUM = 2 ^ 54  -- of the times in a slot; text of another program would be read as larger numbers

local count, first = #policies, 0
local rows = { pack('>i8i8', time[1], time[2]) }
local values, changed, converted = { '', '' }, { false, false }, expand and {}  -- of the keys with slots
local places, slots, ends = { 0, 0, 0, 0 }, { '', '', '', '' }, { 0, 0, 0, 0 }  -- of the policies

for argument = 1, #ARGV, 2 do
  local layout, cost_of_all, costs, written, keys, denied = ARGV[argument], tonumber(ARGV[argument + 1])
  if not cost_of_all then
    costs = {}
    for cost in string.gmatch(ARGV[argument + 1], '%S+') do costs[#costs + 1] = tonumber(cost) end
  end
  repeat
    local again = denied  -- whether a policy has denied the hit, so that no other is charged for it
    written, keys = nil, 0
    for i = 1, count do
      local place, own = byte(layout, 2 * i - 1, 2 * i)
      place, own = place - ZERO, own - ZERO
      places[i], slots[i] = place, false
      if place + own == 0 then
        rows[#rows + 1] = pack('>i8i8i8i8i8', -1, 0, 0, 0, 0)
      else
        local policy, cost, key, _ = policies[i], cost_of_all or costs[i]
        local shift, now, stepped, full, last, a, b = 0, clock, false
        if place > keys then
          keys = place
          if not again then
            local value = pcall('GET', KEYS[first + place])
            if type(value) == 'table' and not is_other_type(value) then call('GET', KEYS[first + place]) end  -- raises
            if type(value) ~= 'string' then value = false end
            if expand then
              value, converted[place] = expand(value, KEYS[first + place])
            elseif value and #value ~= WIDTH * count then
              value = false
            end
            values[place] = value
          end
          changed[place] = converted and converted[place]
        end
        if own > 0 then
          key = KEYS[first + own]
          if cost == RESET then
            call('DEL', key)
            cost = 0
          end
          shift, last, a, b = policy.read(key)
          shift, last, a, b = tonumber(shift or 0), tonumber(last), tonumber(a), tonumber(b)
          if own > keys then keys, changed[own] = own, false end
        elseif values[place] and cost ~= RESET then
          full, shift, last, a, b = unpack('>I8I8I8i8i8', values[place], WIDTH * (i - 1) + 1)
          if last == 0 or full + shift + last >= MAX_SUM then shift, last = 0, nil end
        end
        if last then
          shift, now, stepped = advance(shift, last)
          if full and now >= full then last = nil end
        end
        if not last then last, a, b = now, nil, nil end
        local allowed, remaining, retry, reset, delay, x, y, z, counted =
          policy.step(now, max(cost, 0), last, a, b, key)
        if not allowed and cost <= 0 then allowed, remaining, retry = true, 0, 0 end  -- a look at a key in debt
        if not policy.shadow then
          if not allowed then
            denied = true
          elseif again then
            cost, delay = 0, 0
            _, remaining, _, reset, _, x, y, z = policy.step(now, 0, last, a, b, key)
          end
        end
        if allowed and cost ~= 0 or stepped or counted then
          full = min(now + reset, MAX_FULL)
          if own > 0 then
            written = written or {}
            written[#written + 1] = { policy.write, key, full - shift, shift, now, x, y, z }
          end
          if place > 0 then
            slots[i] = reset > 0 and pack('>I8I8I8i8i8', full, shift, now, x, y or 0) or EMPTY
            ends[i], changed[place] = full - shift, true
          end
        end
        rows[#rows + 1] = pack('>i8i8i8i8i8', allowed and 1 or 0, max(0, remaining), retry, reset, delay)
      end
    end
    if denied and not again then
      for _ = 1, count do rows[#rows] = nil end
    end
  until again == denied
  for place = 1, keys do
    if changed[place] then
      local value, till = '', 0
      for i = 1, count do
        local slot = places[i] == place and slots[i]
        if slot then
          till = max(till, ends[i])
        elseif values[place] then
          slot = sub(values[place], WIDTH * (i - 1) + 1, WIDTH * i)
          local full, shift = unpack('>I8I8', slot)
          till = max(till, full - shift)
        else
          slot = EMPTY
        end
        value = value .. slot
      end
      if shrink then value = shrink(value) end
      call('SET', KEYS[first + place], value, 'PX', format('%.0f', max(1, ceil((till - clock) / 1000))))
    end
  end
  if written then
    for i = 1, #written do
      local write, key, till, shift, now, x, y, z = _G.unpack(written[i], 1, 8)
      write(key, format('%.0f', max(1, ceil((till - clock) / 1000))), shift, now, x, y, z)
    end
  end
  first = first + keys
end
