-- are_there.lua: which of these workers are there. It changes nothing.
--
-- ARGV   4 the names of workers…
-- Returns those that are, in the order given.

workers.begin()
local there = {}
for i = 4, #ARGV do
  if workers.is_there(ARGV[i]) then there[#there + 1] = ARGV[i] end
end
return there
