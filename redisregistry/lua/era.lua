-- The first part of every script that uses the positions of a bucket of channels: finds their
-- era. A new era begins if there is none, and if another run of Redis used the positions
-- last: after a restart or a failover Redis may lack messages that it acknowledged, and its
-- data does not show this.
-- KEYS[1]: positions of the bucket
-- ARGV[1]: name of a new era; ARGV[2]: '1' if Redis loses nothing that it acknowledged, so
--          that the era continues; ARGV[3]: channel
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not run then
	return redis.error_reply('ERR INFO server has no run_id')
end
local function begin()
	redis.call('HSET', KEYS[1], '@', '') -- a full Redis rejects HSET, not DEL: so it fails before DEL
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
