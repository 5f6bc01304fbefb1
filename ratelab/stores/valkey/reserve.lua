-- Note the time of each key that a hit reads, which is that of its charge.
local times = {}
for i = 1, #policies do
  local step = policies[i].step
  policies[i].step = function(now, ...)
    times[i] = now
    return step(now, ...)
  end
end
