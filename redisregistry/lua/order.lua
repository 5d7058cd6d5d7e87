-- Writes an order for all nodes: to close sockets of a user.
-- KEYS: era, users of everyone's channel, orders, newest order
-- ARGV: name of a new era, user, connection ids as JSON or '' for all known sockets, code,
--       reason, number of orders to keep, their age in ms, topic, publishing command
-- Orders are numbered, so that a node notices orders that were dropped before it read them.
-- The newest order is its number, a space and its id.
-- Returns the number of sockets in the order.
if redis.call('EXISTS', KEYS[1]) == 0 then
	redis.call('SET', KEYS[1], ARGV[1])
end
local ids, all = ARGV[3], ARGV[3] == ''
local count = 0
if all then
	local found = {}
	local value = redis.call('HGET', KEYS[2], ARGV[2])
	for _, stay in pairs(value and cjson.decode(value).on or {}) do
		for _, socket in ipairs(cjson.decode(stay[3]).s or {}) do
			found[#found + 1] = socket.i
		end
	end
	count = #found
	ids = count > 0 and cjson.encode(found) or '[]'
else
	count = #cjson.decode(ids)
end
local newest = redis.call('GET', KEYS[4]) or '0'
local number = string.format('%.0f', tonumber(string.match(newest, '^%d+')) + 1)
local id = redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'n', number, 'u', ARGV[2],
	's', ids, 'a', all and 1 or 0, 'c', ARGV[4], 'r', ARGV[5])
redis.call('SET', KEYS[4], number .. ' ' .. id)
local time = redis.call('TIME')
redis.call('XTRIM', KEYS[3], 'MINID', '~', string.format('%.0f', time[1] * 1000 - tonumber(ARGV[7])))
redis.call(ARGV[9], ARGV[8], '')
return count
