-- Stores messages of one bucket, each as the next of its channel, and publishes them.
-- KEYS: positions of the bucket, result of this call, then the stream of each channel
-- ARGV, after those of every script: number of messages to keep, their age in ms,
--       publishing command, maximum number of channels in a bucket, then of each channel:
--       name, topic, number of messages, and their bodies. ARGV[3] is the first channel.
-- Returns the era, then the position of each channel's last message, with spaces between
-- them. What is published is the era, the position of the first message and the bodies,
-- one a line.
local done = redis.call('GET', KEYS[2])
if done and string.match(done, '^%S+') == era then
	return done -- go-redis sends a command again after a broken connection
end
local count, age = ARGV[4], ARGV[5]

local channels, fresh, at = {}, false, 8
while at <= #ARGV do
	local c = {name = ARGV[at], topic = ARGV[at + 1], stream = KEYS[3 + #channels], last = last,
		bodies = {unpack(ARGV, at + 3, at + 2 + ARGV[at + 2])}}
	if #channels > 0 then
		c.last = tonumber(redis.call('HGET', KEYS[1], ':' .. c.name) or '0')
	end
	fresh = fresh or c.last == 0
	channels[#channels + 1] = c
	at = at + 3 + #c.bodies
end
if fresh then
	if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[7]) + 1 then
		era = begin()
		for _, c in ipairs(channels) do
			c.last = 0
		end
	end
	redis.call('HSET', KEYS[1], '@', run) -- a full Redis rejects HSET, not DEL: so it fails before DEL
	for _, c in ipairs(channels) do
		if c.last == 0 then
			redis.call('DEL', c.stream) -- from an earlier era
		end
	end
end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = now - tonumber(age)
local function failed(reply) return type(reply) == 'table' and reply.err end

-- add appends a body to the stream. It returns the position, or an error.
local function add(c, body)
	local seq = c.last + 1
	local function try()
		return redis.pcall('XADD', c.stream, 'MAXLEN', count, string.format('%.0f-0', seq),
			't', string.format('%.0f', now), 'm', body)
	end
	local added = try()
	if failed(added) then
		-- The stream has a message whose position could not be stored: it counts now.
		local top = redis.call('XREVRANGE', c.stream, '+', '-', 'COUNT', 1)[1]
		local over = top and tonumber(string.match(top[1], '^%d+'))
		if not over or over < seq then
			return nil, added
		end
		seq = over + 1
		added = try()
		if failed(added) then
			return nil, added
		end
	end
	return seq
end

-- store stores and publishes the messages of one channel. It returns an error or nothing.
-- It stores a message before its position: Redis may reject either, and a position without a
-- message would be a gap.
local function store(c)
	local first
	for _, body in ipairs(c.bodies) do
		local seq, err = add(c, body)
		if err then
			return err
		end
		c.last = seq
		if not first then
			first = seq
			local lasts = redis.pcall('PEXPIRE', c.stream, age)
			if failed(lasts) then
				if redis.call('XLEN', c.stream) == 1 then
					redis.call('DEL', c.stream) -- it would never expire
				end
				return lasts
			end
		end
	end
	redis.call('HSET', KEYS[1], ':' .. c.name, string.format('%.0f', c.last))
	redis.call(ARGV[6], c.topic, string.format('%s %.0f ', era, first) .. table.concat(c.bodies, '\n'))
end

-- trim deletes messages that are too old, up to 7 more than were added. If the oldest stays,
-- trim reads only that one.
local function trim(c)
	local keep
	for _, most in ipairs({1, 7 + #c.bodies}) do
		for _, entry in ipairs(redis.call('XRANGE', c.stream, '-', '+', 'COUNT', most)) do
			keep = tonumber(entry[2][2]) <= oldest and tonumber(string.match(entry[1], '^%d+')) + 1 or keep
		end
		if not keep then
			return
		end
	end
	redis.call('XTRIM', c.stream, 'MINID', string.format('%.0f-0', keep))
end

local answer = era
for _, c in ipairs(channels) do
	local err = store(c)
	if err then
		return err
	end
	answer = answer .. string.format(' %.0f', c.last)
end
redis.call('SET', KEYS[2], answer, 'PX', 30000)
for _, c in ipairs(channels) do
	trim(c)
end
return answer
