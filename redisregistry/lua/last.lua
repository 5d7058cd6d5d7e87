-- Finds the newest place of a channel.
-- KEYS: places of the bucket
-- ARGV: era to begin, channel
-- Returns "era seq".
local era = redis.call('HGET', KEYS[1], '!')
if not era then
	era = ARGV[1]
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], '!', era)
end
return era .. ' ' .. (redis.call('HGET', KEYS[1], ':' .. ARGV[2]) or '0')
