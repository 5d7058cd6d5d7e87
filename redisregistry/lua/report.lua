-- Stores how many sockets users have on a node, and announces the users who joined a channel
-- or left it on all nodes. A report contains states, not changes: a repeated report changes
-- nothing.
-- KEYS: leases, era, entries and version of the node, events, number of events so far,
--       users announced as left lately, their join sizes, newest order, histories of the
--       nodes, then of each entry the users of its channel
-- ARGV: mode, node, version, lease in ms, era that the node knows, name of a new era, topic,
--       publishing command, history, then of each entry: channel, user, whether the node
--       knows that the user was announced, role, sockets, details, join size that the node
--       knows (0: none)
-- Modes: begin (acquires a lease), report (renews it), end (returns it), remove (for a node
-- whose lease has expired).
-- A history is '' (not known yet), '-' (without a name, not compared) or '=' and its name.
-- Returns "ok", the era, the time in microseconds, the newest order, then of each entry the
-- user's sockets on all nodes, the join size, and the other nodes with their numbers of
-- sockets. If it stores nothing, it returns the reason: emptied (Redis lost its data), lapsed
-- (the lease expired), stale (a newer report was stored), alive (the lease of the node to
-- remove has not expired), or "differs" and the history of a node with a lease.
local mode, node, history = ARGV[1], ARGV[2], ARGV[9]
local time = redis.call('TIME')
local stamp = string.format('%.0f', time[1] * 1000000 + time[2])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(redis.call('ZSCORE', KEYS[1], node) or '0')
local era = redis.call('GET', KEYS[2])

local function differ(a, b)
	return a ~= b and a ~= '-' and b ~= '-'
end

if mode == 'remove' then
	if lease == 0 or lease >= now then
		return {'alive'}
	end
else
	if mode == 'begin' and history ~= '' then
		local all = redis.call('HGETALL', KEYS[10])
		for i = 1, #all, 2 do
			local held = redis.call('ZSCORE', KEYS[1], all[i])
			if not held then
				redis.call('HDEL', KEYS[10], all[i])
			elseif all[i] ~= node and tonumber(held) >= now and differ(history, all[i + 1]) then
				return {'differs', all[i + 1]}
			end
		end
		redis.call('HSET', KEYS[10], node, history)
	end
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

-- Users who left are kept for four leases. A script deletes at most five times as many as it
-- may add, so that it stays short.
local lately = now - 4 * tonumber(ARGV[4])
local over = redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', string.format('%.0f', lately), 'LIMIT', 0, 1000)
if #over > 0 then
	redis.call('ZREM', KEYS[7], unpack(over))
	redis.call('HDEL', KEYS[8], unpack(over))
end

-- smaller is the smaller of two sizes, of which 0 is unknown.
local function smaller(a, b)
	if a == 0 or b == 0 then
		return a + b
	end
	return math.min(a, b)
end

-- Permissions are checked before anything is changed: after half of a change, the next report
-- would find it done and would not announce it. (Before Redis 7.0 a script cannot check
-- this.)
if redis.acl_check_cmd and #ARGV >= 10 then
	for _, command in ipairs({
		{'hset', KEYS[11], 'f', 'v'}, {'hdel', KEYS[11], 'f'}, {'hget', KEYS[11], 'f'}, {'hlen', KEYS[11]},
		{'sadd', KEYS[3], 'm'}, {'srem', KEYS[3], 'm'}, {'incr', KEYS[6]},
		{'zadd', KEYS[7], '0', 'm'}, {'zrem', KEYS[7], 'm'}, {'zscore', KEYS[7], 'm'}, {'pexpire', KEYS[7], '1'},
		{'xadd', KEYS[5], '*', 'f', 'v'}, {ARGV[8], ARGV[7], ''},
	}) do
		if not redis.acl_check_cmd(unpack(command)) then
			return redis.error_reply('NOPERM this user may not ' .. command[1])
		end
	end
end

local answer = {'ok', era or '', stamp, redis.call('GET', KEYS[9]) or ''}
local announced = false
for i = 10, #ARGV, 7 do
	local users = KEYS[11 + (i - 10) / 7]
	local channel, user, known, role = ARGV[i], ARGV[i + 1], ARGV[i + 2] == '1', ARGV[i + 3]
	local sockets, details = tonumber(ARGV[i + 4]), ARGV[i + 5]
	local entry = channel .. '\n' .. user
	local value = redis.call('HGET', users, user)
	local kept = value and cjson.decode(value) or {n = 0, on = {}}
	if not kept.on then
		kept = {n = 0, on = kept} -- the form without join sizes
	end
	local nodes = kept.on
	local size = smaller(kept.n, tonumber(ARGV[i + 6]))
	local was = next(nodes) ~= nil
	if sockets > 0 then
		-- New sockets get the time of this report.
		nodes[node] = {role, sockets, (string.gsub(details, '"a":%-1', '"a":' .. stamp))}
	else
		if nodes[node] then
			role = nodes[node][1]
		end
		nodes[node] = nil
	end
	local is = next(nodes) ~= nil

	-- The node may know a user as announced who is not in Redis any more: Redis lost its
	-- data, or another report announced that the user left. The answer to a report can be lost.
	local gone = false
	if not was then
		local score = redis.call('ZSCORE', KEYS[7], entry)
		gone = score and tonumber(score) > lately
	end
	local joined = is and not was and (gone or not known)
	local left = not is and (was or known and not gone and mode ~= 'remove')
	local count = redis.call('HLEN', users) + (is and not was and 1 or was and not is and -1 or 0)
	if joined then
		size = smaller(size, count)
		if gone then -- a leave and a join in one presence window cancel out: the earlier size counts
			size = smaller(size, tonumber(redis.call('HGET', KEYS[8], entry) or '0'))
		end
	end
	-- A full Redis rejects commands that add, not those that remove: so these come last.
	if is then
		redis.call('HSET', users, user, cjson.encode({n = size, on = nodes}))
	end
	if left then
		redis.call('ZADD', KEYS[7], string.format('%.0f', now), entry)
		redis.call('HSET', KEYS[8], entry, string.format('%.0f', size))
		redis.call('PEXPIRE', KEYS[7], 4 * tonumber(ARGV[4]))
		redis.call('PEXPIRE', KEYS[8], 4 * tonumber(ARGV[4]))
	end
	if joined or left then
		announced = true
		-- Events are numbered, so that a node notices those that were dropped before it read them.
		redis.call('XADD', KEYS[5], 'MAXLEN', '~', 20000, '*', 'n', redis.call('INCR', KEYS[6]), 'c', channel,
			'u', user, 'r', role, 'j', joined and 1 or 0, 's', count, 'z', string.format('%.0f', size))
	end
	if joined then
		redis.call('ZREM', KEYS[7], entry)
		redis.call('HDEL', KEYS[8], entry)
	end
	if sockets > 0 then
		redis.call('SADD', KEYS[3], entry)
	else
		redis.call('SREM', KEYS[3], entry)
	end
	if was and not is then
		redis.call('HDEL', users, user)
	end

	local total, others = 0, {}
	for on, stay in pairs(nodes) do
		total = total + stay[2]
		if on ~= node and channel == '' then
			others[#others + 1] = on .. ' ' .. stay[2]
		end
	end
	answer[#answer + 1] = total
	answer[#answer + 1] = size
	answer[#answer + 1] = table.concat(others, ' ')
end
if mode == 'end' or mode == 'remove' and redis.call('EXISTS', KEYS[3]) == 0 then
	redis.call('ZREM', KEYS[1], node)
	redis.call('HDEL', KEYS[10], node)
	redis.call('DEL', KEYS[3], KEYS[4])
end
if announced then
	redis.call(ARGV[8], ARGV[7], '')
end
return answer
