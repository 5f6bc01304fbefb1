-- A queue of `capacity` credits that drains `limit` a microsecond; a unit of cost adds `period` credits, and is delayed
-- until the credits ahead of it have drained.
local limit, period, capacity = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function step(now, cost, last, level)
  level = max(0, (level or 0) - (now - last) * limit)
  local work = cost * period
  local allowed, retry, delay = level + work <= capacity, 0, 0
  if allowed then
    delay = ceil(level / limit)
    level = level + work
  else
    retry = work <= capacity and ceil((level + work - capacity) / limit) or NEVER
  end
  return allowed, floor((capacity - level) / period), retry, ceil(level / limit), delay, level
end

local function charge(now, cost, at, level) return max(0, level + cost * period) end

return decide(step, read, write)
