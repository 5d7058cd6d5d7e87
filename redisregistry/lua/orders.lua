-- Reads the orders after a given one.
-- KEYS: era, orders, newest order
-- ARGV: id of the order, maximum number
-- Returns the era, the newest order, then of each order: id, number, user, connection ids,
-- whether it is for all sockets that were connected at that time, code, reason.
local answer = {redis.call('GET', KEYS[1]) or '', redis.call('GET', KEYS[3]) or ''}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])) do
	answer[#answer + 1] = entry[1]
	for i = 2, 12, 2 do
		answer[#answer + 1] = entry[2][i]
	end
end
return answer
