-- Stores messages of several channels, each as the next of its channel, and publishes them.
-- The channels of a bucket stand together. What Redis rejects of one channel is an error of
-- its messages only.
-- KEYS: result of this call, then of each bucket its positions and the stream of each channel
-- ARGV, after those of every script: number of messages to keep, their age in ms, for how
--       long streams live on, publishing command, maximum number of channels in a bucket,
--       then of each bucket the number of channels, the field of each, the number of messages
--       of each, negative if its stream has to live on, and the bodies of each
-- Returns a line for each bucket, with tabs: the era, then of each channel the seq of its
-- first message. If messages were rejected, a space, how many of the first ones are stored
-- and published, a space, and the error of the others follow.
-- The topic of a channel is named as its stream. What is published is the era, a space and
-- the seq of the first message, then the bodies, each after a NUL.
-- The script's own work costs as much as its commands: it has few tables and few patterns.
local try, count, command, most = redis.pcall, ARGV[3], ARGV[6], tonumber(ARGV[7])
local stamp = format('%d', now)
-- To trim a stream with each message would cost nearly as much as to store one. So a stream
-- has up to some more messages, which nothing reads.
local some = math.max(1, math.min(64, math.floor(count / 8)))

-- errorOf returns the error in what a command or pcall returned, or nil.
local function errorOf(reply)
	local err = type(reply) == 'table' and reply.err or type(reply) == 'string' and reply
	return err and (string.gsub(err, '[\t\n]', ' '))
end

-- liveOn has a stream live on, and deletes messages that are too old. It returns an error or
-- nil. last is the seq of the last of some messages that were just stored.
local function liveOn(stream, messages, last)
	local err = errorOf(try('PEXPIRE', stream, ARGV[5]))
	if err then
		local length = try('XLEN', stream)
		if not errorOf(length) and length <= messages then
			try('DEL', stream) -- it is new, and would never expire
		end
		return err
	end
	local ok, first = pcall(firstKept, stream, 0, last)
	if ok and first then
		try('XTRIM', stream, 'MINID', first[1])
	end
end

-- store stores and publishes the messages of a bucket with n channels. Its keys begin at key,
-- its arguments at at. It returns a line of the answer, done if that is of this era.
-- It stores a message before its position: Redis may reject either, and a position without a
-- message would be a gap.
local function store(key, at, n, done)
	local positions = KEYS[key]
	local kept = call('HMGET', positions, '!', '@', unpack(ARGV, at, at + n - 1))
	local era, new = eraOf(positions, kept)
	if done and string.match(done, '^[^\t]*') == era then
		return done -- go-redis sends a command again after a broken connection
	end
	local fresh = new
	for i = 3, n + 2 do
		fresh = fresh or not kept[i]
	end
	if fresh then
		if not new and call('HLEN', positions) > most + 1 then
			era, new = eraOf(positions, kept, true)
		end
		call('HSET', positions, '@', run) -- a full Redis rejects HSET, not DEL: so it fails before DEL
		for i = 1, n do
			if new or not kept[i + 2] then
				call('DEL', KEYS[key + i]) -- from an earlier era
			end
		end
	end

	local set, sets, line, failed = {}, 0, {era}, nil
	local from = at + 2 * n -- the first body
	for i = 1, n do
		local stream, messages = KEYS[key + i], ARGV[at + n + i - 1]
		messages = messages == '1' and 1 or tonumber(messages)
		local live = messages < 0
		messages = live and -messages or messages
		local seq, err = 0, nil
		if not new and kept[i + 2] then
			seq = tonumber(kept[i + 2])
		else
			live = true
		end
		if not seq then
			seq, err = 0, 'ERR the position of a channel is not a number'
		end
		local stored, text, first = 0, nil, '0'
		local trims = (seq + messages) % some < messages
		while stored < messages and not err do
			text = format('%d', seq + 1) -- for an id it means the same as with "-0"
			local added
			if live or stored > 0 then
				added = try('XADD', stream, text, stamp, ARGV[from + stored])
			else
				added = try('XADD', stream, 'NOMKSTREAM', text, stamp, ARGV[from + stored])
			end
			if not added then
				live = true -- someone deleted the stream: it begins again, and must expire
			elseif type(added) ~= 'table' then
				if stored == 0 then
					first = text
				end
				seq, stored = seq + 1, stored + 1
			else
				-- The stream may have messages whose position could not be stored. They count now.
				local top = stored == 0 and try('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
				local over = top and tonumber(string.match(top[1], '^%d+'))
				if over and over > seq then
					seq = over
				else
					err = errorOf(added)
				end
			end
		end
		if trims and stored > 0 then
			try('XTRIM', stream, 'MAXLEN', count)
		end
		if live and stored > 0 then
			local dead = liveOn(stream, stored, seq)
			if dead then
				stored, err = 0, dead
			end
		end
		if stored > 0 then
			set[sets + 1] = ARGV[at + i - 1]
			set[sets + 2] = err and format('%d', seq) or text
			sets = sets + 2
		end
		if err then
			failed = failed or {}
			failed[i] = {stored, err}
		end
		line[i + 1] = first
		from = from + messages
	end

	local unset = sets > 0 and errorOf(try('HSET', positions, unpack(set)))
	local head = era .. ' '
	from = at + 2 * n
	for i = 1, n do
		local messages, first = ARGV[at + n + i - 1], line[i + 1]
		messages = messages == '1' and 1 or math.abs(messages)
		local stored, err = messages, unset
		if failed and failed[i] then
			stored, err = failed[i][1], failed[i][2]
		end
		if stored > 0 and not unset then
			local reply
			if stored == 1 then
				reply = try(command, KEYS[key + i], head .. first .. '\0' .. ARGV[from])
			else
				reply = try(command, KEYS[key + i], head .. first .. '\0' .. table.concat(ARGV, '\0', from, from + stored - 1))
			end
			if type(reply) ~= 'number' then
				stored, err = 0, errorOf(reply)
			end
		elseif unset then
			stored = 0
		end
		if err then
			line[i + 1] = format('%s %d %s', first, stored, err)
		end
		from = from + messages
	end
	return table.concat(line, '\t')
end

local done, nextLine = call('GET', KEYS[1]), nil
if done then
	nextLine = string.gmatch(done, '[^\n]+')
end
local answer, key, at = {}, 2, 8
while ARGV[at] do
	local n = tonumber(ARGV[at])
	local ok, line = pcall(store, key, at + 1, n, nextLine and nextLine())
	if not ok then
		line = string.rep('\t0 0 ' .. errorOf(line), n)
	end
	answer[#answer + 1] = line
	local from = at + 1 + 2 * n -- the first body
	for i = 1, n do
		from = from + math.abs(ARGV[at + n + i])
	end
	key, at = key + 1 + n, from
end
answer = table.concat(answer, '\n')
call('SET', KEYS[1], answer, 'PX', 30000)
return answer
