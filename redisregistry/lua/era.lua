-- The first part of every script that uses positions. A bucket of channels has an era, which
-- is the epoch of its positions. A new era begins if there is none, and if another run of
-- Redis used the positions last: after a restart or a failover Redis may lack messages that
-- it acknowledged, and its data does not show this.
-- ARGV[1]: name of a new era; ARGV[2]: '1' if Redis loses nothing that it acknowledged, so
--          that eras continue
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if not run then
	return redis.error_reply('ERR INFO server has no run_id')
end

-- begin begins a new era of a bucket and returns it. A call that is sent again to another
-- run of Redis does not begin the same era.
local function begin(positions)
	local era = ARGV[1] .. string.sub(run, 1, 8)
	redis.call('HSET', positions, '@', '') -- a full Redis rejects HSET, not UNLINK: so it fails before that
	redis.call('UNLINK', positions) -- it may be large, and DEL would take long
	redis.call('HSET', positions, '!', era, '@', run)
	return era
end

-- open returns the era of a bucket, and a list that has the values of fields at 3 and later.
local function open(positions, ...)
	local kept = redis.call('HMGET', positions, '!', '@', ...)
	if not kept[1] or not kept[2] or kept[2] ~= run and ARGV[2] ~= '1' then
		return begin(positions), {}
	elseif kept[2] ~= run then
		redis.call('HSET', positions, '@', run)
	end
	return kept[1], kept
end

-- seqOf returns the last seq that is a channel's value, 0 without a value, nil if it is not a
-- number.
local function seqOf(value)
	if value then
		return tonumber(value)
	end
	return 0
end
