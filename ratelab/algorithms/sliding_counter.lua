-- What a sliding window would hold, estimated from the window of the clock and the one before; the state is the window's
-- number and both counts. All is counted in units of cost times the window.
local burst, window = unpack(parameters)

local function step(state, now, cost)
  local index = math.floor(now / window)
  local previous, current = state[2] or 0, state[3] or 0
  if state[1] and index > state[1] then
    previous, current = index == state[1] + 1 and current or 0, 0
  end
  local elapsed = now - index * window
  local free = (burst - current) * window - previous * (window - elapsed)
  local allowed, retry = cost * window <= free, 0
  if allowed then
    current, free = current + cost, free - cost * window
  elseif cost > burst then
    retry = NEVER
  elseif current + cost <= burst then
    retry = math.ceil((cost * window - free) / previous)
  else
    retry = window - elapsed + math.ceil((current + cost - burst) * window / current)
  end
  state[1], state[2], state[3] = index, previous, current
  local reset = current > 0 and 2 * window - elapsed or previous > 0 and window - elapsed or 0
  return allowed, math.max(0, math.floor(free / window)), retry, reset, 0
end

return decide(step, read, write)
