-- `burst` in any window: the time of each admitted unit in a ring. The value is text of fixed width, so that a hit reads
-- and writes only the places it needs: `shift`, `last`, the ring's head and count, then up to `burst` times.
local burst, window = unpack(parameters)
local WIDTH, HEAD = 16, 64

local function text(number) return string.format('%016.0f', number) end
local function from(place) return HEAD + WIDTH * (place % burst) end

local function read_log(key)
  local head, numbers = redis.call('GETRANGE', key, 0, HEAD - 1), {}
  for i = 1, #head, WIDTH do numbers[#numbers + 1] = tonumber(head:sub(i, i + WIDTH - 1)) end
  return { shift = numbers[1] or 0, last = numbers[2], numbers[3] or 0, numbers[4] or 0, fresh = #head == 0 }
end

local function write_log(key, state, expiry)
  local head = text(state.shift) .. text(state.last) .. text(state[1]) .. text(state[2])
  if state.fresh then
    return redis.call('SET', key, head .. string.rep(text(state.last), state.added), 'PX', expiry)
  end
  redis.call('PEXPIRE', key, expiry)
  redis.call('SETRANGE', key, 0, head)
  local first = from(state[1] + state[2] - state.added)
  local fit = math.min(state.added, (HEAD + WIDTH * burst - first) / WIDTH)
  if fit > 0 then redis.call('SETRANGE', key, first, string.rep(text(state.last), fit)) end
  if state.added > fit then redis.call('SETRANGE', key, HEAD, string.rep(text(state.last), state.added - fit)) end
end

local function step(state, now, cost, key)
  local head, count = state[1], state[2]
  local function at(place) return tonumber(redis.call('GETRANGE', key, from(place), from(place) + WIDTH - 1)) end
  local gone, alive = 0, count  -- the times rise, so the first that still counts is found by halving
  while gone < alive do
    local middle = gone == 0 and alive == count and 0 or math.floor((gone + alive) / 2)
    if at(head + middle) + window <= now then gone = middle + 1 else alive = middle end
  end
  head, count = (head + gone) % burst, count - gone
  local allowed, retry = count + cost <= burst, 0
  local newest = allowed and cost > 0 and now or count > 0 and at(head + count - 1)
  if not allowed then
    retry = cost <= burst and at(head + count + cost - burst - 1) + window - now or NEVER
  end
  state.added = allowed and cost or 0
  state[1], state[2] = head, count + state.added
  return allowed, burst - state[2], retry, newest and newest + window - now or 0, 0
end

return decide(step, read_log, write_log)
