-- At most `burst` per clock-aligned window; the state is the cost admitted in the window of its latest time.
local burst, window = tonumber(ARGV[1]), tonumber(ARGV[2])

local function step(now, cost, last, used)
  local index = floor(now / window)
  local left = (index + 1) * window - now
  if not used or floor(last / window) < index then used = 0 end
  local allowed, retry = used + cost <= burst, 0
  if allowed then
    used = used + cost
  else
    retry = cost <= burst and left or NEVER
  end
  return allowed, burst - used, retry, used > 0 and left or 0, 0, used
end

local function charge(now, cost, at, used)
  if cost > 0 or not at or floor(at / window) == floor(now / window) then used = max(0, used + cost) end
  return used
end

return decide(step, read, write)
