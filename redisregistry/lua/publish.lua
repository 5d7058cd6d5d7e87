-- Stores a message as the next of its channel and publishes it.
-- KEYS: places of the bucket, stream of the channel, what this call did before
-- ARGV: era to begin, channel, body, messages kept, their age in ms, topic,
--       publishing command, name of this call, channels a bucket may have
-- Returns "era seq total".
local told = redis.call('GET', KEYS[3])
if told then
	return told -- the client sends a command again when its connection broke
end
local function begin()
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], '!', ARGV[1])
	return ARGV[1]
end
local era = redis.call('HGET', KEYS[1], '!') or begin()
local field = ':' .. ARGV[2]
local seq = redis.call('HINCRBY', KEYS[1], field, 1)
if seq == 1 then
	if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[9]) then
		era = begin()
		redis.call('HSET', KEYS[1], field, 1)
	end
	redis.call('DEL', KEYS[2]) -- of an era before
end
local total = redis.call('HINCRBY', KEYS[1], '#', 1)

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[4], string.format('%.0f-0', seq),
	't', string.format('%.0f', now), 'n', ARGV[8], 'm', ARGV[3])
local keep
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)) do
	if tonumber(entry[2][2]) < now - tonumber(ARGV[5]) then
		keep = tonumber(string.match(entry[1], '^%d+')) + 1
	end
end
if keep then
	redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', keep))
end
redis.call('PEXPIRE', KEYS[2], ARGV[5])

local place = string.format('%s %.0f %.0f', era, seq, total)
redis.call('SET', KEYS[3], place, 'PX', 30000)
redis.call(ARGV[7], ARGV[6], place .. ' ' .. ARGV[8] .. ' ' .. ARGV[3])
return place
