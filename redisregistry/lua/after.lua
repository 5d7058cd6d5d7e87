-- Reads the messages after a position of a channel, without those that are too old, up to
-- the next message that is missing.
-- KEYS: positions of the bucket, stream of the channel
-- ARGV, after those of every script: era and seq ('' and 0 for the oldest stored message),
--       maximum number of messages, age in ms, maximum number of bytes (0: no maximum; the
--       message that reaches it is the last)
-- Returns the era, '1' if the position is unknown or the message right after it is not
-- stored, '' otherwise, then seq and body of each message.
local behind, known = tonumber(ARGV[5]), ARGV[4] == '' and ARGV[5] == '0'
local gone = not known and (ARGV[4] ~= era or behind > last)
if known or gone then
	behind = 0
end
if last == 0 or behind == last then -- the stream may belong to an earlier era
	return {era, gone and '1' or ''}
end

local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[7])
local function range(from, count)
	return redis.call('XRANGE', KEYS[2], string.format('%.0f-0', from), string.format('%.0f-0', last), 'COUNT', count)
end
local function seq(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function old(entry) return tonumber(entry[2][2]) <= oldest end

local first = range(behind + 1, 1)[1]
if first and old(first) then
	local low, high = seq(first) + 1, last + 1 -- the first message that is not too old is between them
	while low < high do
		local middle = math.floor((low + high) / 2)
		local entry = range(middle, 1)[1]
		if entry and old(entry) then
			low = seq(entry) + 1
		else
			high = middle
		end
	end
	first = nil
	if low <= last then
		first = range(low, 1)[1]
	end
end
if not known and not gone and not (first and seq(first) == behind + 1) then
	gone = true
end
local found = {era, gone and '1' or ''}
local left, bytes, most = tonumber(ARGV[6]), 0, tonumber(ARGV[8])
if most == 0 then
	most = math.huge
end
-- All other calls wait for this script. So it reads a few entries at a time: as many as may
-- fit if they are like those before.
local entries, before = first and {first} or {}, nil
while #entries > 0 do
	for _, entry in ipairs(entries) do
		if left == 0 or bytes >= most or before and seq(entry) ~= before + 1 or old(entry) then
			return found
		end
		before = seq(entry)
		found[#found + 1] = string.match(entry[1], '^%d+')
		found[#found + 1] = entry[2][4]
		left = left - 1
		bytes = bytes + #entry[2][4]
	end
	local fit = 128
	if most < math.huge then
		fit = math.ceil((most - bytes) / bytes * (#found / 2 - 1))
	end
	local count = math.min(left, fit, 4 * #entries, 128)
	if count < 1 or before == last then
		return found
	end
	entries = range(before + 1, count)
end
return found
