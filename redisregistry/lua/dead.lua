-- Lists nodes whose lease has expired.
-- KEYS: leases
-- ARGV: lease in ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
-- No node takes a lease for so long: these are from before the clock was set back.
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now + 10 * lease), '+inf', 'LIMIT', 0, 100)) do
	redis.call('ZADD', KEYS[1], string.format('%.0f', now + lease), node)
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now), 'LIMIT', 0, 1000)
