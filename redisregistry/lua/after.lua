-- Reads the messages after a position of a channel, without those that are too old, up to
-- the next message that is missing.
-- KEYS: positions of the bucket, stream of the channel
-- ARGV, after those of every script: field of the channel, age in ms, number of messages that
--       are kept, era and seq ('' and 0 for the oldest stored message), maximum number of
--       messages, maximum number of bytes (0: no maximum; the message that reaches it is the
--       last)
-- Returns the era, '1' if the position is unknown or the message right after it is not
-- stored, '' otherwise, then seq and body of each message.
local kept = call('HMGET', KEYS[1], '!', '@', ARGV[3])
local era, new = eraOf(KEYS[1], kept)
local last = not new and tonumber(kept[3] or '0') or 0
local behind, known = tonumber(ARGV[7]), ARGV[6] == '' and ARGV[7] == '0'
local gone = not known and (ARGV[6] ~= era or behind > last)
if known or gone then
	behind = 0
end
if last == 0 or behind == last then -- the stream may belong to an earlier era
	return {era, gone and '1' or ''}
end

-- The stream may have more messages than are kept.
local first = firstKept(KEYS[2], math.max(behind, last - tonumber(ARGV[5])) + 1, last)
local function entrySeq(entry) return tonumber(string.match(entry[1], '^%d+')) end
if not known and not gone and not (first and entrySeq(first) == behind + 1) then
	gone = true
end
local found = {era, gone and '1' or ''}
local left, bytes, most = tonumber(ARGV[8]), 0, tonumber(ARGV[9])
if most == 0 then
	most = math.huge
end
-- All other calls wait for this script. So it reads a few entries at a time: as many as may
-- fit if they are like those before.
local entries, before = first and {first} or {}, nil
while #entries > 0 do
	for _, entry in ipairs(entries) do
		local seq, body = entrySeq(entry), entry[2][2]
		if left == 0 or bytes >= most or before and seq ~= before + 1 or tonumber(entry[2][1]) <= now - ARGV[4] then
			return found
		end
		before = seq
		found[#found + 1] = format('%d', seq)
		found[#found + 1] = body
		left = left - 1
		bytes = bytes + #body
	end
	local fit = 128
	if most < math.huge then
		fit = math.ceil((most - bytes) / bytes * (#found / 2 - 1))
	end
	local count = math.min(left, fit, 4 * #entries, 128)
	if count < 1 or before == last then
		return found
	end
	entries = call('XRANGE', KEYS[2], format('%d-0', before + 1), format('%d-0', last), 'COUNT', count)
end
return found
