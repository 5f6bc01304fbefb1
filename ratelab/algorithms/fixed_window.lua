-- `burst` per window of the clock; the state is the window's number and what it has admitted.
local burst, window = unpack(parameters)

local function step(state, now, cost)
  local index = math.floor(now / window)
  local used = state[1] == index and state[2] or 0
  local left = (index + 1) * window - now
  local allowed, retry = used + cost <= burst, 0
  if allowed then
    used = used + cost
  else
    retry = cost <= burst and left or NEVER
  end
  state[1], state[2] = index, used
  return allowed, burst - used, retry, used > 0 and left or 0, 0
end

return decide(step, read, write)
