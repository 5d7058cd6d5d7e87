-- The second part of the scripts that use streams. An entry of a stream is a message: its id
-- is the seq and "-0", its only field is when Redis stored it, in ms, the value its body.
-- ARGV[4]: age of messages in ms
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- firstKept returns the first entry from a seq to another one that is not too old, or nil.
local function firstKept(stream, from, to)
	-- read returns the first entry from a seq on, and its seq if it is too old.
	local function read(seq)
		local entry = call('XRANGE', stream, format('%d-0', seq), format('%d-0', to), 'COUNT', 1)[1]
		if entry and tonumber(entry[2][1]) <= now - ARGV[4] then
			return entry, tonumber(string.match(entry[1], '^%d+'))
		end
		return entry
	end
	local first, old = read(from)
	if not old then
		return first
	end
	local low, high = old + 1, to + 1 -- it is between them
	while low < high do
		local middle = math.floor((low + high) / 2)
		first, old = read(middle)
		if old then
			low = old + 1
		else
			high = middle
		end
	end
	return low <= to and read(low) or nil
end
