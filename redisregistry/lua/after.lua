-- Reads what follows a position of a channel: what is not too old, up to the next
-- message that is missing.
-- KEYS: positions of the bucket, stream of the channel
-- ARGV, behind those of every script: era and seq ('' and 0 for the oldest kept), how
--       many at the most, age in ms
-- Returns the era, '1' when the position is unknown or the message right behind it
-- is not kept, '' otherwise, then seq and body of each message.
local behind, known = tonumber(ARGV[5]), ARGV[4] == '' and ARGV[5] == '0'
local gone = not known and (ARGV[4] ~= era or behind > last)
if known or gone then
	behind = 0
end
if last == 0 or behind == last then -- the stream may be of an era before
	return {era, gone and '1' or ''}
end

local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[7])
local function range(from, count)
	return redis.call('XRANGE', KEYS[2], string.format('%.0f-0', from), string.format('%.0f-0', last), 'COUNT', count)
end
local function seq(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function old(entry) return tonumber(entry[2][2]) <= oldest end

local entries = range(behind + 1, ARGV[6])
if entries[1] and old(entries[1]) then
	local low, high = seq(entries[1]) + 1, last + 1 -- the first that is not lies there
	while low < high do
		local middle = math.floor((low + high) / 2)
		local entry = range(middle, 1)[1]
		if entry and old(entry) then
			low = seq(entry) + 1
		else
			high = middle
		end
	end
	entries = {}
	if low <= last then
		entries = range(low, ARGV[6])
	end
end
if not known and not gone and not (entries[1] and seq(entries[1]) == behind + 1) then
	gone = true
end
local found = {era, gone and '1' or ''}
local before
for _, entry in ipairs(entries) do
	if before and seq(entry) ~= before + 1 or old(entry) then
		break
	end
	before = seq(entry)
	found[#found + 1] = string.match(entry[1], '^%d+')
	found[#found + 1] = entry[2][4]
end
return found
