-- At most `burst` per window of the calendar; the state is the cost admitted in a window and the end of that window.
-- STARTS and LENGTHS hold the runs of windows of one length, in DIGITS digits each.
local burst = tonumber(ARGV[1])

local function number(digits, place)
  return tonumber(string.sub(digits, DIGITS * place + 1, DIGITS * (place + 1)))
end

local function find_end(now)
  local run, beyond = 0, #STARTS / DIGITS
  while beyond - run > 1 do
    local middle = floor((run + beyond) / 2)
    if number(STARTS, middle) <= now then run = middle else beyond = middle end
  end
  local length = number(LENGTHS, run)
  return now + length - (now - number(STARTS, run)) % length
end

local function step(now, cost, last, used, finish)
  if not finish or now >= finish then used, finish = 0, find_end(now) end
  local left, allowed, retry = finish - now, used + cost <= burst, 0
  if allowed then
    used = used + cost
  else
    retry = cost <= burst and left or NEVER
  end
  return allowed, burst - used, retry, used > 0 and left or 0, 0, used, finish
end

local function charge(now, cost, at, used, finish)
  if cost > 0 or not at or find_end(at) == finish then used = max(0, used + cost) end
  return used, finish
end

return decide(step, read, write)
