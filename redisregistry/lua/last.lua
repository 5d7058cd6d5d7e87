-- Finds the newest position of a channel.
-- KEYS: positions of the bucket
-- ARGV, after those of every script: field of the channel
-- Returns "era seq".
local kept = call('HMGET', KEYS[1], '!', '@', ARGV[3])
local era, new = eraOf(KEYS[1], kept)
return era .. ' ' .. (not new and kept[3] or '0')
