-- At most `burst` in any window. The state consists of integers of eight bytes, so that a hit reads and writes only a
-- few numbers: `shift`, `last`, the head and length of a ring, then up to `burst` times of admitted units.
local burst, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local unpack = struct.unpack
local WIDTH, HEAD = 8, 32
local MAX_SUM = 2 ^ 54  -- of the numbers in the head; text of another program would be read as larger numbers

local function place(number) return HEAD + WIDTH * (number % burst) end
local function times(count, time) return string.rep(pack('>I8', time), count) end

local new  -- whether the latest key that was read did not exist

local function read_head(key)
  local head = pcall('GETRANGE', key, 0, HEAD - 1)
  new = true
  if type(head) == 'string' then
    if #head < HEAD then return end
    local shift, last, first, count = unpack('>I8I8I8I8', head)
    if shift + last + first + count < MAX_SUM then
      new = false
      return shift, last, first, count
    end
  elseif not is_other_type(head) then
    call('GETRANGE', key, 0, HEAD - 1)  -- raises the error
  end
end

local function write_log(key, expiry, shift, now, head, count, added)
  local numbers = pack('>I8I8I8I8', shift, now, head, count)
  if new then
    call('SET', key, numbers .. times(added, now), 'PX', expiry)
  else
    call('SETRANGE', key, 0, numbers)
    local first = place(head + count - added)
    local fit = min(added, (place(-1) + WIDTH - first) / WIDTH)
    call('SETRANGE', key, first, times(fit, now))
    if fit < added then call('SETRANGE', key, HEAD, times(added - fit, now)) end
    call('PEXPIRE', key, expiry)  -- last: if the time has passed, this deletes the key, which SETRANGE would restore
  end
end

local function step(now, cost, last, head, count, key)
  head, count = head or 0, count or 0
  local function at(number)
    local time = call('GETRANGE', key, place(number), place(number) + WIDTH - 1)
    return #time == WIDTH and unpack('>I8', time) or 0
  end
  -- the times are in order: find the first that has not expired by exponential search, then by bisection
  local gone, alive, middle = 0, count, 0
  while gone < alive do
    if at(head + middle) + window <= now then gone = middle + 1 else alive = middle end
    middle = alive < count and floor((gone + alive) / 2) or min(2 * gone - 1, count - 1)
  end
  head, count = (head + gone) % burst, count - gone
  local allowed, retry = count + cost <= burst, 0
  if not allowed then retry = cost <= burst and at(head + count + cost - burst - 1) + window - now or NEVER end
  local added = allowed and cost or 0
  local newest = added > 0 and now or count > 0 and at(head + count - 1)
  count = count + added
  return allowed, burst - count, retry, newest and newest + window - now or 0, 0, head, count, added
end

-- Beyond the burst, a charge replaces the oldest entries, since decisions depend on the newest ones alone. Without a
-- time, the oldest entries are refunded, which would have expired first.
local function charge(now, cost, at, head, count, key)
  local added = min(max(cost, 0), burst)
  local over = max(0, count + added - burst)
  head, count = (head + over) % burst, count - over
  local log = call('GETRANGE', key, HEAD, place(-1) + WIDTH - 1)
  log = string.sub(log, head * WIDTH + 1) .. string.rep('\0', burst * WIDTH - #log) .. string.sub(log, 1, head * WIDTH)
  local function entry(number) return unpack('>I8', log, number * WIDTH + 1) end
  if cost < 0 then
    local first, last = 0, count
    if at then
      while first < count and entry(first) < at do first = first + 1 end
      last = first
      while last < count and entry(last) == at do last = last + 1 end
    end
    local removed = min(-cost, last - first)
    if removed > 0 then
      log = string.sub(log, 1, first * WIDTH) .. string.sub(log, (first + removed) * WIDTH + 1, count * WIDTH)
      head, count = 0, count - removed
      if count > 0 then call('SETRANGE', key, HEAD, log) end
    end
  end
  local newest = added > 0 and now or count > 0 and entry(count - 1)
  return head, count + added, added, newest and newest + window - now or 0
end

return decide(step, read_head, write_log)
