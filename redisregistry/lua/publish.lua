-- Stores messages of several channels, each as the next of its channel, and publishes them.
-- The channels of a bucket stand together. What Redis rejects of one channel is an error of
-- its messages only.
-- KEYS: result of this call, then of each bucket its positions and the stream of each channel
-- ARGV, after those of every script: number of messages to keep, their age in ms, for how
--       long streams live on, publishing command, maximum number of channels in a bucket,
--       then of each bucket the number of channels, of each channel its field, number of
--       messages, negative if its stream has to live on, and their bodies
-- Returns a line for each bucket, with tabs: the era, then of each channel the seq of its
-- first message. If messages were rejected, a space, how many of the first ones are stored
-- and published, a space, and the error of the others follow.
-- The topic of a channel is named as its stream. What is published is the era, a space and the seq of the first message, then
-- the bodies, each after a NUL.
-- The script's own work costs as much as its commands: it has few tables and few patterns.
local ARGV, KEYS, call, try, format = ARGV, KEYS, redis.call, redis.pcall, string.format
local count, command, most = ARGV[3], ARGV[6], tonumber(ARGV[7])
local stamp = format('%d', now)
-- To trim a stream with each message would cost nearly as much as to store one. So a stream
-- has up to some more messages, which nothing reads.
local some = math.max(1, math.min(64, math.floor(tonumber(count) / 8)))

-- The channels of the present bucket, by number.
local n, fields, streams, froms, counts, live = 0, {}, {}, {}, {}, {}
local lasts, firsts, texts, stored, errors = {}, {}, {}, {}, {} -- firsts and texts: first and last seq as text

-- errorOf returns the error in what a command or pcall returned, or nil.
local function errorOf(reply)
	local err = type(reply) == 'table' and reply.err or type(reply) == 'string' and reply
	return err and (string.gsub(err, '[\t\n]', ' '))
end
local function failed(reply) return type(reply) == 'table' and reply.err ~= nil end

-- append appends the bodies of a channel to its stream. It may set an error.
local function append(i)
	local stream, from, seq, done = streams[i], froms[i], lasts[i], 0
	local to, trims = from + counts[i] - 1, (seq + counts[i]) % some < counts[i]
	for at = from, to do
		seq = seq + 1
		local text = format('%d', seq)
		local added
		if at == to and trims then
			added = try('XADD', stream, 'MAXLEN', count, text .. '-0', stamp, ARGV[at])
		else
			added = try('XADD', stream, text .. '-0', stamp, ARGV[at])
		end
		if failed(added) and at == from then
			-- The stream may have messages whose position could not be stored. They count now.
			local top = try('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
			local over = top and entrySeq(top)
			if over and over >= seq then
				seq = over + 1
				text = format('%d', seq)
				added = try('XADD', stream, text .. '-0', stamp, ARGV[at])
			end
		end
		if failed(added) then
			errors[i] = errorOf(added)
			break
		end
		if at == from then
			firsts[i] = text
		end
		lasts[i], texts[i], done = seq, text, done + 1
	end
	stored[i] = done
end

-- liveOn has a stream live on, and deletes messages that are too old. It may set an error.
local function liveOn(i)
	local stream = streams[i]
	local lasting = try('PEXPIRE', stream, ARGV[5])
	if failed(lasting) then
		errors[i], stored[i] = errorOf(lasting), 0
		local length = try('XLEN', stream)
		if not failed(length) and length <= counts[i] then
			try('DEL', stream) -- it is new, and would never expire
		end
		return
	end
	local ok, first = pcall(firstKept, stream, 0, lasts[i])
	if ok and first then
		try('XTRIM', stream, 'MINID', first[1])
	end
end

-- store stores and publishes the messages of the bucket, and returns its line of the answer.
-- It stores a message before its position: Redis may reject either, and a position without a
-- message would be a gap.
local function store(positions, done)
	local era, kept = open(positions, unpack(fields, 1, n))
	if done and string.match(done, '^[^\t]*') == era then
		return done -- go-redis sends a command again after a broken connection
	end
	local fresh = false
	for i = 1, n do
		local last = seqOf(kept[i + 2])
		errors[i], firsts[i], stored[i] = not last and 'ERR the position of a channel is not a number', '0', 0
		lasts[i] = last
		fresh = fresh or last == 0
	end
	if fresh then
		if call('HLEN', positions) > most + 1 then
			era = begin(positions)
			for i = 1, n do
				lasts[i], errors[i] = 0, false
			end
		end
		call('HSET', positions, '@', run) -- a full Redis rejects HSET, not DEL: so it fails before DEL
		for i = 1, n do
			if lasts[i] == 0 then
				call('DEL', streams[i]) -- from an earlier era
			end
		end
	end

	local set, m = {}, 0
	for i = 1, n do
		if not errors[i] then
			local new = lasts[i] == 0
			append(i)
			if (new or live[i]) and stored[i] > 0 then
				liveOn(i)
			end
			if stored[i] > 0 then
				set[m + 1], set[m + 2] = fields[i], texts[i]
				m = m + 2
			end
		end
	end
	local unset = m > 0 and errorOf(try('HSET', positions, unpack(set, 1, m)))
	local line = {era}
	for i = 1, n do
		local from, good, err = froms[i], stored[i], errors[i]
		local unpublished = good > 0 and unset
		if good == 1 and not unset then
			unpublished = errorOf(try(command, streams[i], era .. ' ' .. firsts[i] .. '\0' .. ARGV[from]))
		elseif good > 0 and not unset then
			ARGV[from - 1] = era .. ' ' .. firsts[i]
			unpublished = errorOf(try(command, streams[i], table.concat(ARGV, '\0', from - 1, from - 1 + good)))
		end
		if unpublished then
			good, err = 0, unpublished
		end
		line[i + 1] = err and format('%s %d %s', firsts[i], good, err) or firsts[i]
	end
	return table.concat(line, '\t')
end

local done, nextLine = call('GET', KEYS[1]), nil
if done then
	nextLine = string.gmatch(done, '[^\n]+')
end
local answer, key, at = {}, 2, 8
while at <= #ARGV do
	local positions = KEYS[key]
	n = tonumber(ARGV[at])
	at = at + 1
	for i = 1, n do
		local messages = ARGV[at + 1] == '1' and 1 or tonumber(ARGV[at + 1])
		live[i] = messages < 0
		messages = math.abs(messages)
		fields[i], streams[i], froms[i], counts[i] = ARGV[at], KEYS[key + i], at + 2, messages
		at = at + 2 + messages
	end
	key = key + 1 + n
	local ok, line = pcall(store, positions, nextLine and nextLine())
	if not ok then
		line = string.rep('\t0 0 ' .. errorOf(line), n)
	end
	answer[#answer + 1] = line
end
answer = table.concat(answer, '\n')
call('SET', KEYS[1], answer, 'PX', 30000)
return answer
