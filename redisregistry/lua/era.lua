-- Begins every script that uses the positions of a bucket of channels: it finds the
-- era that they belong to. A new one begins where there is none, and where they were
-- used last by another run of Redis: what a Redis has when it starts, or when it
-- takes over as a replica, may be older than what was acknowledged, and nothing in
-- the data could say so.
-- KEYS[1]: positions of the bucket
-- ARGV[1]: era to begin; ARGV[2]: '1' when every run of Redis has all that was
--          acknowledged, and the era goes on; ARGV[3]: channel
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not run then
	return redis.error_reply('ERR INFO server has no run_id')
end
local function begin()
	redis.call('HSET', KEYS[1], '@', '') -- DEL may be refused, and is not where Redis is full
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], '!', ARGV[1], '@', run)
	return ARGV[1]
end
local field = ':' .. ARGV[3]
local kept = redis.call('HMGET', KEYS[1], '!', '@', field)
local era, last = kept[1], tonumber(kept[3] or '0')
if era and kept[2] and kept[2] ~= run and ARGV[2] == '1' then
	redis.call('HSET', KEYS[1], '@', run)
elseif not era or kept[2] ~= run then
	era, last = begin(), 0
end
