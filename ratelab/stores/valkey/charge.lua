-- Charge or refund without a decision: the hit that follows takes the place of a `step` that admits everything.
--
-- The last arguments are the cost for each policy, negative for a refund; the time of the charge to refund, in the time
-- of its key, 0 if unknown; and when a ticket began, and how long it lasts. The last key is that of the ticket, which
-- is written so that it is settled once; without a ticket, it lasts no time. Returns 1 if this is done, 2 if it was done
-- before, and 0 after the end of the ticket.

local LARGEST = 2 ^ 52  -- of the numbers of a key in debt
local life, began = tonumber(table.remove(ARGV)), tonumber(table.remove(ARGV))
local next_time = string.gmatch(table.remove(ARGV), '%S+')
local next_change = string.gmatch(table.remove(ARGV), '%S+')

if life > 0 then
  local rest = min(life, began + life - clock)
  if rest <= 0 then return 0 end
  local new = call('SET', table.remove(KEYS), '', 'PX', format('%.0f', ceil(rest / 1000)), 'NX')
  if not new then return 2 end
end

local function limit(number) return number and max(-LARGEST, min(number, LARGEST)) end

converts = false
for i = 1, #policies do
  local policy, change, time = policies[i], tonumber(next_change()), tonumber(next_time())
  local at = time > 0 and time or nil
  policy.kernel = { step = policy.step, charge = policy.charge }
  policy.step = function(now, cost, last, a, b, key)
    local kernel, cost = policy.kernel, change
    local _, remaining, _, reset, _, x, y, z = kernel.step(now, 0, last, a, b, key)
    if cost < 0 and life > 0 and kernel.burst then  -- the quota has changed since, and the charge with it
      cost = -floor(-cost * kernel.burst / BURSTS[i])
    end
    if kernel.charge and cost ~= 0 then
      x, y, z, reset = kernel.charge(now, cost, at, x, y, key)
      x, y = limit(x), limit(y)
      if not reset then _, _, _, reset = kernel.step(now, 0, now, x, y, key) end
    elseif cost > 0 then
      _, _, _, reset, _, x, y, z = kernel.step(now, min(cost, max(remaining, 0)), last, a, b, key)
    end
    return true, 0, 0, reset, 0, x, y, z
  end
end
