-- Begins a new era when Redis came back with less than what a node has seen.
-- KEYS: places of the bucket, stream of the channel whose message was seen last
-- ARGV: era to begin, era, total, seq and name of what was seen
-- Returns 1 when it did.
local era = redis.call('HGET', KEYS[1], '!')
if not era or era > ARGV[2] then
	return 0 -- another era begins, or began already
end
local wrong = era < ARGV[2] -- of a backup: it was over
	or tonumber(redis.call('HGET', KEYS[1], '#') or '0') < tonumber(ARGV[3])
local entry = redis.call('XRANGE', KEYS[2], ARGV[4] .. '-0', ARGV[4] .. '-0')[1]
if entry and entry[2][4] ~= ARGV[5] then
	wrong = true -- others have published since, and the place was given away again
end
if wrong then
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], '!', ARGV[1])
	return 1
end
return 0
