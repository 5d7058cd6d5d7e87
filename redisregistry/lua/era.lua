-- The first part of every script that uses positions. A bucket of channels has an era, which
-- is the epoch of its positions. A new era begins if there is none, and if another run of
-- Redis used the positions last: after a restart or a failover Redis may lack messages that
-- it acknowledged, and its data does not show this.
-- ARGV[1]: name of a new era; ARGV[2]: '1' if Redis loses nothing that it acknowledged, so
--          that eras continue
-- Each function and each table costs all scripts some time, also if it is not used.
local KEYS, ARGV, call, format = KEYS, ARGV, redis.call, string.format
local info = call('INFO', 'server')
local _, at = string.find(info, 'run_id:', 1, true)
if not at then
	return redis.error_reply('ERR INFO server has no run_id')
end
local run = string.sub(info, at + 1, at + 40)

-- eraOf returns the era of a bucket, and whether it begins now: then its channels have no
-- positions. kept has the fields '!' and '@' of the positions. If full, an era begins.
local function eraOf(positions, kept, full)
	local era, by = kept[1], kept[2]
	if era and by == run and not full then
		return era, false
	end
	if era and by and ARGV[2] == '1' and not full then
		call('HSET', positions, '@', run)
		return era, false
	end
	-- A call that is sent again to another run of Redis does not begin the same era.
	era = ARGV[1] .. string.sub(run, 1, 8)
	call('HSET', positions, '@', '') -- a full Redis rejects HSET, not UNLINK: so it fails before that
	call('UNLINK', positions) -- it may be large, and DEL would take long
	call('HSET', positions, '!', era, '@', run)
	return era, true
end
