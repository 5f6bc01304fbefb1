-- A bucket of `capacity` credits that earns `limit` a microsecond; a unit of cost takes `period`.
local limit, period, capacity = unpack(parameters)

local function step(state, now, cost)
  local tokens = math.min(capacity, (state[1] or capacity) + (now - state.last) * limit)
  local price = cost * period
  local allowed, retry = price <= tokens, 0
  if allowed then
    tokens = tokens - price
  else
    retry = price <= capacity and math.ceil((price - tokens) / limit) or NEVER
  end
  state[1] = tokens
  return allowed, math.floor(tokens / period), retry, math.ceil((capacity - tokens) / limit), 0
end

return decide(step, read, write)
