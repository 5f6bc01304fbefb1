-- A bucket of `capacity` credits that earns `limit` a microsecond; a unit of cost takes `period` credits.
local limit, period, capacity = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function step(now, cost, last, tokens)
  tokens = min(capacity, (tokens or capacity) + (now - last) * limit)
  local price = cost * period
  local allowed, retry = price <= tokens, 0
  if allowed then
    tokens = tokens - price
  else
    retry = price <= capacity and ceil((price - tokens) / limit) or NEVER
  end
  return allowed, floor(tokens / period), retry, ceil((capacity - tokens) / limit), 0, tokens
end

local function charge(now, cost, at, tokens) return min(capacity, tokens - cost * period) end

return decide(step, read, write)
