-- Takes down how many sockets users have on a node, and tells of those who came to
-- a channel or left it for good. What it is told are states, not steps: told twice
-- is told once.
-- KEYS: leases, era, entries and version of the node, events, who was told as gone
--       lately, then the users of each change's channel
-- ARGV: mode, node, version, lease in ms, era known, era to begin, topic,
--       publishing command, then of each change: channel, user, whether the node
--       knows it as told, role, sockets, details
-- Modes: begin (take a lease), tell (hold one), end (give it back), reap (of a node
-- whose lease ran out).
-- Returns "ok", the era and the user's sockets on all nodes of each change; or why
-- not: emptied, lapsed, stale, alive.
local mode, node = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(redis.call('ZSCORE', KEYS[1], node) or '0')
local era = redis.call('GET', KEYS[2])
if mode == 'reap' then
	if lease == 0 or lease >= now then
		return {'alive'}
	end
else
	if not era then
		era = ARGV[6]
		redis.call('SET', KEYS[2], era)
	end
	if mode ~= 'begin' then
		if era ~= ARGV[5] then
			return {'emptied'}
		elseif lease < now then
			return {'lapsed'}
		end
	end
	if tonumber(ARGV[3]) < tonumber(redis.call('GET', KEYS[4]) or '0') then
		return {'stale'}
	end
	redis.call('SET', KEYS[4], ARGV[3])
	redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[4])), node)
end

redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', string.format('%.0f', now - 4 * tonumber(ARGV[4])))
local answer = {'ok', era or ''}
local told = false
for i = 9, #ARGV, 6 do
	local users = KEYS[7 + (i - 9) / 6]
	local channel, user, known, role = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1', ARGV[i + 3]
	local sockets, details = tonumber(ARGV[i + 4]), ARGV[i + 5]
	local entry = channel .. '\n' .. user
	local value = redis.call('HGET', users, user)
	local nodes = value and cjson.decode(value) or {}
	local was = next(nodes) ~= nil
	if sockets > 0 then
		nodes[node] = {role, sockets, details}
		redis.call('SADD', KEYS[3], entry)
	else
		if nodes[node] then
			role = nodes[node][1]
		end
		nodes[node] = nil
		redis.call('SREM', KEYS[3], entry)
	end
	local is = next(nodes) ~= nil
	if is then
		redis.call('HSET', users, user, cjson.encode(nodes))
	elseif was then
		redis.call('HDEL', users, user)
	end

	-- What the node knows as told Redis may have forgotten with all else, or told
	-- otherwise since: the answer to a report can be lost.
	local gone = not was and redis.call('ZSCORE', KEYS[6], entry)
	local joined = is and not was and (gone or not known)
	local left = not is and (was or known and not gone and mode ~= 'reap')
	if left then
		redis.call('ZADD', KEYS[6], string.format('%.0f', now), entry)
		redis.call('PEXPIRE', KEYS[6], 4 * tonumber(ARGV[4]))
	elseif joined then
		redis.call('ZREM', KEYS[6], entry)
	end
	if joined or left then
		told = true
		redis.call('XADD', KEYS[5], 'MAXLEN', '~', 20000, '*', 'c', channel, 'u', user, 'r', role,
			'j', joined and 1 or 0, 's', redis.call('HLEN', users))
	end
	local total = 0
	for _, on in pairs(nodes) do
		total = total + on[2]
	end
	answer[#answer + 1] = total
end
if mode == 'end' or mode == 'reap' and redis.call('EXISTS', KEYS[3]) == 0 then
	redis.call('ZREM', KEYS[1], node)
	redis.call('DEL', KEYS[3], KEYS[4])
end
if told then
	redis.call(ARGV[8], ARGV[7], '')
end
return answer
