-- grow.lua: gives new items of a group their indexes.
--
-- ARGV   4 id of the group   5 number of items, then for each of them its key and the item itself
-- Returns {index, "1" when there is a job of that index else "0", …} for each item, or {"full", max}
-- when the group would have more items than it may, and nothing is changed.
-- Idempotent: a key that was seen keeps its index, so that whoever adds the same items again, after
-- a crash or from another item, meets what is there.

local group, count = ARGV[4], tonumber(ARGV[5])
local index_key = OURS .. 'keys:' .. group
local index_by_key, fresh = {}, 0
for i = 1, count do
  local key = ARGV[4 + 2 * i]
  if index_by_key[key] == nil then
    index_by_key[key] = tonumber(redis.call('HGET', index_key, key)) or false
    if not index_by_key[key] then fresh = fresh + 1 end
  end
end
local g = redis.call('HMGET', keys.group(group), 'size', 'max_items')
local size = int(g[1])
if g[2] and fresh > 0 and size + fresh > tonumber(g[2]) then return { 'full', g[2] } end
local answer = {}
for i = 1, count do
  local key = ARGV[4 + 2 * i]
  if not index_by_key[key] then
    index_by_key[key] = size
    redis.call('HSET', index_key, key, size)
    redis.call('HSET', OURS .. 'items:' .. group, size, ARGV[5 + 2 * i])
    size = size + 1
  end
  local index = index_by_key[key]
  answer[#answer + 1] = index
  answer[#answer + 1] = redis.call('EXISTS', keys.job(groups.item_id(group, index)))
end
redis.call('HSET', keys.group(group), 'size', size)
return answer
