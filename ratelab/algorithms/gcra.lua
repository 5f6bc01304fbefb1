-- The theoretical arrival time of the next unit, told as the credits by which it lies ahead of the key's last time.
local limit, period, tolerance = unpack(parameters)

local function step(state, now, cost)
  local early = math.max(0, (state[1] or 0) - (now - state.last) * limit)
  local moved = early + cost * period
  local allowed, retry = moved <= tolerance, 0
  if allowed then
    early = moved
  else
    retry = cost * period <= tolerance and math.ceil((moved - tolerance) / limit) or NEVER
  end
  state[1] = early
  return allowed, math.floor((tolerance - early) / period), retry, math.ceil(early / limit), 0
end

return decide(step, read, write)
