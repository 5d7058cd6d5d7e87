-- Finds the newest position of a channel.
-- KEYS: positions of the bucket
-- ARGV, after those of every script: field of the channel
-- Returns "era seq".
local era, kept = open(KEYS[1], ARGV[3])
return string.format('%s %d', era, seqOf(kept[3]))
