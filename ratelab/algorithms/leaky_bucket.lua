-- A queue of `capacity` credits that drains `limit` a microsecond; a unit of cost adds `period` and waits for what is ahead.
local limit, period, capacity = unpack(parameters)

local function step(state, now, cost)
  local level = math.max(0, (state[1] or 0) - (now - state.last) * limit)
  local work = cost * period
  local allowed, retry, delay = level + work <= capacity, 0, 0
  if allowed then
    delay = math.ceil(level / limit)
    level = level + work
  else
    retry = work <= capacity and math.ceil((level + work - capacity) / limit) or NEVER
  end
  state[1] = level
  return allowed, math.floor((capacity - level) / period), retry, math.ceil(level / limit), delay
end

return decide(step, read, write)
