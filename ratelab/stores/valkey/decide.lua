-- The decisions of one policy; the script of its algorithm follows. KEYS are the keys to decide; ARGV is the parameters
-- of the algorithm, then a cost for each key.

-- `step(now, cost, last, a, b)` decides as the Python kernel does, from the latest time and the numbers of a key. For a
-- new key, the numbers are nil and `last` is `now`. It returns the five fields of a decision and the numbers to write,
-- which are not written if the hit is denied or costs nothing, unless it `counted` a denial, as a penalty does. A
-- negative cost other than RESET is a probe, which charges nothing and is written.
local function decide(step, read, write)
  local count = #KEYS
  local rows = { pack('>i8i8', time[1], time[2]) }
  for i = 1, count do
    local key, cost = KEYS[i], tonumber(ARGV[#ARGV - count + i])
    if cost == RESET then
      call('DEL', key)
      cost = 0
    end
    local shift, last, a, b = read(key)
    local now, stepped = clock, false
    if last then
      last, a, b = tonumber(last), tonumber(a), tonumber(b)
      shift, now, stepped = advance(tonumber(shift), last)
    end
    local allowed, remaining, retry, reset, delay, a, b, c, counted = step(now, max(cost, 0), last or now, a, b, key)
    if allowed and cost ~= 0 or stepped or counted then
      shift = shift or 0
      write(key, format('%.0f', max(1, ceil((reset + now - shift - clock) / 1000))), shift, now, a, b, c)
    end
    if not allowed and remaining < 0 then remaining = 0 end  -- in debt
    if not allowed and cost <= 0 then allowed, remaining, retry = true, 0, 0 end
    rows[i + 1] = pack('>i8i8i8i8i8', allowed and 1 or 0, remaining, retry, reset, delay)
  end
  return table.concat(rows)
end
