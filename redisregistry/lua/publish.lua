-- Stores messages of several channels, each as the next of its channel, and publishes them.
-- The channels of a bucket stand together. What Redis rejects of one channel is an error of
-- its messages only.
-- KEYS: result of this call, then of each bucket its positions and the stream of each channel
-- ARGV, after those of every script: number of messages to keep, their age in ms, publishing
--       command, maximum number of channels in a bucket, then of each bucket the number of
--       channels, of each channel its field, topic, number of messages, and their bodies
-- Returns a line for each bucket, with tabs: the era, then of each channel the seq of its
-- first message here, how many of its messages are stored and published, and an error that
-- the others have. What is published to a topic is the era, a space and the seq of the first
-- message, then the bodies, each after a NUL.

-- A stream expires one age after its last message. To extend that with every message, and to
-- look for messages that are too old, would cost as much as to store one. So both are done
-- once in a period, and streams live for a period longer. The value of a channel in the
-- positions is its last seq, a space and the period in which this was done last.
local count, command, most = ARGV[3], ARGV[5], tonumber(ARGV[6])
local length = math.max(1, math.floor(age / 64))
local period = string.format('%d', math.floor(now / length))
local stamp = string.format('%d', now)

-- errorOf returns the error in what pcall, or a command, returned.
local function errorOf(reply)
	local err = reply
	if type(reply) == 'table' then
		err = reply.err
	end
	return err and (string.gsub(err, '[\t\n]', ' '))
end
local function failed(reply) return type(reply) == 'table' and reply.err ~= nil end

local function xadd(c, seq, at)
	local id = string.format('%d-0', seq)
	if at == c.to then
		return redis.pcall('XADD', c.stream, 'MAXLEN', count, id, stamp, ARGV[at])
	end
	return redis.pcall('XADD', c.stream, id, stamp, ARGV[at])
end

-- append appends the bodies of a channel to its stream. It sets first, and counts in stored.
-- It returns an error or nothing.
local function append(c)
	c.first = c.last + 1
	for at = c.from, c.to do
		local added = xadd(c, c.first + c.stored, at)
		if failed(added) and at == c.from then
			-- The stream may have messages whose position could not be stored. They count now.
			local top = redis.pcall('XREVRANGE', c.stream, '+', '-', 'COUNT', 1)[1]
			local over = top and entrySeq(top)
			if over and over >= c.first then
				c.first = over + 1
				added = xadd(c, c.first, at)
			end
		end
		if failed(added) then
			if c.stored > 0 then
				redis.pcall('XTRIM', c.stream, 'MAXLEN', count)
			end
			return errorOf(added)
		end
		c.stored = c.stored + 1
	end
end

-- keep has a stream live on, and deletes messages that are too old. It returns an error or
-- nothing.
local function keep(c)
	local lasts = redis.pcall('PEXPIRE', c.stream, age + length)
	if failed(lasts) then
		if redis.pcall('XLEN', c.stream) == math.min(c.stored, tonumber(count)) then
			redis.pcall('DEL', c.stream) -- it would never expire
		end
		return errorOf(lasts)
	end
	local ok, first = pcall(firstKept, c.stream, 0, c.first + c.stored - 1)
	if ok and first then
		redis.pcall('XTRIM', c.stream, 'MINID', first[1])
	end
end

-- store stores and publishes the messages of a bucket, and returns its line of the answer.
-- It stores a message before its position: Redis may reject either, and a position without a
-- message would be a gap.
local function store(positions, channels, fields, done)
	local era, kept = open(positions, unpack(fields))
	if done and string.match(done, '^[^\t]*') == era then
		return done -- go-redis sends a command again after a broken connection
	end
	local fresh = false
	for i, c in ipairs(channels) do
		local value = kept[i + 2]
		c.last, c.period = seqOf(value), value and string.match(value, ' (%d+)$')
		if not c.last then
			c.err = 'ERR the position of a channel is not a number'
		end
		fresh = fresh or c.last == 0
	end
	if fresh then
		if redis.call('HLEN', positions) > most + 1 then
			era = begin(positions)
			for _, c in ipairs(channels) do
				c.last, c.period, c.err = 0, nil, nil
			end
		end
		redis.call('HSET', positions, '@', run) -- a full Redis rejects HSET, not DEL: so it fails before DEL
		for _, c in ipairs(channels) do
			if c.last == 0 then
				redis.call('DEL', c.stream) -- from an earlier era
			end
		end
	end

	local set = {}
	for _, c in ipairs(channels) do
		c.err = c.err or append(c)
		c.good = c.stored
		local err = c.stored > 0 and c.period ~= period and keep(c)
		if err then
			c.err, c.good = err, 0
		end
		if c.good > 0 then
			set[#set + 1] = c.field
			set[#set + 1] = string.format('%d %s', c.first + c.stored - 1, period)
		end
	end
	local written = #set > 0 and redis.pcall('HSET', positions, unpack(set))
	local line = {era}
	for _, c in ipairs(channels) do
		local published = written
		if c.good > 0 and not failed(written) then
			ARGV[c.from - 1] = string.format('%s %d', era, c.first)
			published = redis.pcall(command, c.topic, table.concat(ARGV, '\0', c.from - 1, c.from + c.stored - 1))
		end
		if c.good > 0 and failed(published) then
			c.err, c.good = errorOf(published), 0
		end
		line[#line + 1] = string.format('%d\t%d\t%s', c.first or 0, c.good, c.err or '')
	end
	return table.concat(line, '\t')
end

local done, nextLine = redis.call('GET', KEYS[1]), nil
if done then
	nextLine = string.gmatch(done, '[^\n]+')
end
local answer, key, at = {}, 2, 7
while at <= #ARGV do
	local positions, channels, fields = KEYS[key], {}, {}
	local n = tonumber(ARGV[at])
	at = at + 1
	for i = 1, n do
		local messages = tonumber(ARGV[at + 2])
		fields[i] = ARGV[at]
		channels[i] = {field = fields[i], topic = ARGV[at + 1], stream = KEYS[key + i],
			from = at + 3, to = at + 2 + messages, stored = 0}
		at = at + 3 + messages
	end
	key = key + 1 + n
	local ok, line = pcall(store, positions, channels, fields, nextLine and nextLine())
	if not ok then
		line = string.rep('\t0\t0\t' .. errorOf(line), n)
	end
	answer[#answer + 1] = line
end
answer = table.concat(answer, '\n')
redis.call('SET', KEYS[1], answer, 'PX', 30000)
return answer
