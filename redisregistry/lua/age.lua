-- The second part of the scripts that use streams. An entry of a stream is a message: its id
-- is the seq and "-0", its only field is when Redis stored it, in ms, the value its body.
-- ages is the argument with the age in ms.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local age = tonumber(ARGV[4])
local function entrySeq(entry) return tonumber(string.match(entry[1], '^%d+')) end
local function old(entry) return tonumber(entry[2][1]) <= now - age end
local function range(stream, from, to, count)
	return redis.call('XRANGE', stream, string.format('%d-0', from), string.format('%d-0', to), 'COUNT', count)
end

-- firstKept returns the first entry from a seq to another one that is not too old, or nil.
local function firstKept(stream, from, to)
	local first = range(stream, from, to, 1)[1]
	if not first or not old(first) then
		return first
	end
	local low, high = entrySeq(first) + 1, to + 1 -- it is between them
	while low < high do
		local middle = math.floor((low + high) / 2)
		local entry = range(stream, middle, to, 1)[1]
		if entry and old(entry) then
			low = entrySeq(entry) + 1
		else
			high = middle
		end
	end
	return low <= to and range(stream, low, to, 1)[1] or nil
end
