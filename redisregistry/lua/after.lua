-- Reads what follows a place of a channel.
-- KEYS: places of the bucket, stream of the channel
-- ARGV: channel, era and seq ('' and 0 for the oldest kept), how many at the most
-- Returns era, seq of the last, then seq and body of each message; or nothing when
-- the place is unknown.
local era = redis.call('HGET', KEYS[1], '!') or ''
local last = tonumber(redis.call('HGET', KEYS[1], ':' .. ARGV[1]) or '0')
local from = '-'
if ARGV[2] ~= '' or ARGV[3] ~= '0' then
	local seq = tonumber(ARGV[3])
	if ARGV[2] ~= era or seq > last then
		return {}
	end
	from = string.format('%.0f-0', seq + 1)
end
local found = {era, string.format('%.0f', last)}
if last > 0 then -- else what there is may be of an era before
	for _, entry in ipairs(redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', ARGV[4])) do
		found[#found + 1] = string.match(entry[1], '^%d+')
		found[#found + 1] = entry[2][6]
	end
end
return found
