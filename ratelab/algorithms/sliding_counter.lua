-- An estimate of a sliding window from the current clock-aligned window and the previous one; the state is both counts.
-- The arithmetic is in cost times window length.
local burst, window = tonumber(ARGV[1]), tonumber(ARGV[2])

local function step(now, cost, last, previous, current)
  local index = floor(now / window)
  local passed, elapsed = index - floor(last / window), now - index * window
  if passed > 0 then previous, current = passed == 1 and current or 0, 0 end
  previous, current = previous or 0, current or 0
  local free = (burst - current) * window - previous * (window - elapsed)
  local allowed, retry = cost * window <= free, 0
  if allowed then
    current, free = current + cost, free - cost * window
  elseif cost > burst then
    retry = NEVER
  elseif current + cost <= burst then
    retry = ceil((cost * window - free) / previous)
  else
    retry = window - elapsed + ceil((current + cost - burst) * window / current)
  end
  local reset = current > 0 and 2 * window - elapsed or previous > 0 and window - elapsed or 0
  return allowed, max(0, floor(free / window)), retry, reset, 0, previous, current
end

local function charge(now, cost, at, previous, current)
  local passed = at and floor(now / window) - floor(at / window)
  if cost > 0 or passed == 0 then
    current = max(0, current + cost)
  elseif passed == 1 then
    previous = max(0, previous + cost)
  elseif not passed then  -- the previous window first, since it counts for less
    previous, current = max(0, previous + cost), max(0, current + min(0, previous + cost))
  end
  return previous, current
end

return decide(step, read, write)
