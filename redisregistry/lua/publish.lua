-- Stores a message as the next of its channel and publishes it.
-- KEYS: positions of the bucket, stream of the channel, what this call did before
-- ARGV, behind those of every script: body, messages kept, their age in ms, topic,
--       publishing command, name of this call, channels a bucket may have
-- Returns "era seq".
local done = redis.call('GET', KEYS[3])
if done and string.match(done, '^%S+') == era then
	return done -- the client sends a command again when its connection broke
end
if last == 0 then
	if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[10]) + 1 then
		era = begin()
	end
	redis.call('HSET', KEYS[1], '@', run) -- refused where Redis is full, which DEL is not
	redis.call('DEL', KEYS[2]) -- of an era before
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function add(seq)
	return redis.pcall('XADD', KEYS[2], 'MAXLEN', ARGV[5], string.format('%.0f-0', seq),
		't', string.format('%.0f', now), 'm', ARGV[4])
end
-- The message is there before its position counts: either may be refused, and a
-- position without a message would be a hole.
local seq = last + 1
local added = add(seq)
if type(added) == 'table' and added.err then
	-- A message whose position could not be noted stands there: it counts now.
	local top = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
	local over = top and tonumber(string.match(top[1], '^%d+'))
	if not over or over < seq then
		return added
	end
	seq = over + 1
	added = add(seq)
	if type(added) == 'table' and added.err then
		return added
	end
end
local lasts = redis.pcall('PEXPIRE', KEYS[2], ARGV[6])
if type(lasts) == 'table' and lasts.err then
	if redis.call('XLEN', KEYS[2]) == 1 then
		redis.call('DEL', KEYS[2]) -- nothing else would ever end it
	end
	return lasts
end
redis.call('HSET', KEYS[1], field, string.format('%.0f', seq))
local position = string.format('%s %.0f', era, seq)
redis.call(ARGV[8], ARGV[7], position .. ' ' .. ARGV[4])
redis.call('SET', KEYS[3], position, 'PX', 30000)

-- What is too old goes, some more than comes; the oldest alone is read when it stays.
local oldest, keep = now - tonumber(ARGV[6]), nil
for _, count in ipairs({1, 8}) do
	for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', count)) do
		keep = tonumber(entry[2][2]) <= oldest and tonumber(string.match(entry[1], '^%d+')) + 1 or keep
	end
	if not keep then
		break
	end
end
if keep then
	redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', keep))
end
return position
