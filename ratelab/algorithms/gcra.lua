-- The theoretical arrival time (TAT), stored as the credits by which it is ahead of the key's latest time.
local limit, period, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function step(now, cost, last, early)
  early = max(0, (early or 0) - (now - last) * limit)
  local moved = early + cost * period
  local allowed, retry = moved <= tolerance, 0
  if allowed then
    early = moved
  else
    retry = cost * period <= tolerance and ceil((moved - tolerance) / limit) or NEVER
  end
  return allowed, floor((tolerance - early) / period), retry, ceil(early / limit), 0, early
end

local function charge(now, cost, at, early) return max(0, early + cost * period) end

return decide(step, read, write)
