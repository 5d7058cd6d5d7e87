-- Finds the newest position of a channel.
-- Returns "era seq".
return era .. ' ' .. string.format('%.0f', last)
