-- The state of a key, as text: `shift`, by which the key's time is ahead of the server's; `last`, its latest time; and
-- one or two numbers of the algorithm.

local MAX_DIGITS = 17  -- with a sign

local function read(key)
  local value = pcall('GET', key)
  if type(value) == 'string' then
    local shift, last, a, b = string.match(value, '^(%d+) (%d+) (%-?%d+) ?(%d*)$')
    if last and max(#shift, #last, #a, #b) <= MAX_DIGITS then return shift, last, a, b end
  elseif value and not is_other_type(value) then
    call('GET', key)  -- raises the error
  end
end

local function write(key, expiry, shift, now, a, b)
  local state = format(b and '%.0f %.0f %.0f %.0f' or '%.0f %.0f %.0f', shift, now, a, b)
  call('SET', key, state, 'PX', expiry)
end
