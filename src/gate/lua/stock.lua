-- Every change of stock that is not a sale: a product's opening, a restock, a withdrawal, a healing (delta 0). Appends it to the sales log in the same step.
--
-- KEYS  1 head   2 log   3 the product   4 channel that clears the workers' sold-out marks
-- ARGV  1 cause ("opening", "restock", "withdrawal", "healing")   2 product   3 delta   4 actor (user id, 0 the system)   5 note, one line
--       6 price, 7 customer limit (opening only)
-- Gives {entry id, stock afterwards}; opening a product that is open already gives {false, its stock} and changes nothing.
-- Errors: STALE and DAMAGED as in sell.lua, CLOSED (no such product), SHORT (less in stock than is to be withdrawn), FULL (too much stock).

local EPOCH, STOCK_MAX = '@EPOCH@', 1000000000

local head = redis.call('HMGET', KEYS[1], 'epoch', 'at')
if head[1] ~= EPOCH then
    return redis.error_reply('STALE the gate was opened anew; read the head again')
end
local function is_whole(text, digits)
    return text and #text <= digits and not string.find(text, '%D')
end
if not is_whole(head[2], 14) then
    return redis.error_reply('DAMAGED the head')
end
local cause, delta = ARGV[1], tonumber(ARGV[3])
local stock = redis.call('HGET', KEYS[3], 'stock')
if stock and not is_whole(stock, 10) then
    return redis.error_reply('DAMAGED product ' .. ARGV[2])
end
stock = tonumber(stock)

if cause == 'opening' then
    if stock then
        return {false, stock}
    end
    stock = 0
elseif not stock then
    return redis.error_reply('CLOSED no such product')
end
if stock + delta < 0 then
    return redis.error_reply('SHORT only ' .. stock .. ' in stock')
end
if stock + delta > STOCK_MAX then
    return redis.error_reply('FULL a product holds at most ' .. STOCK_MAX)
end

local clock = redis.call('TIME')
local at = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(head[2]))
local entry = redis.call('XADD', KEYS[2], 'NOMKSTREAM', EPOCH .. '-*', 'stock', -- first: see sell.lua
    at .. '\n' .. ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. (stock + delta) .. ' ' .. cause .. ' ' .. ARGV[4] .. ' ' .. ARGV[5])
if not entry then
    return redis.error_reply('DAMAGED the log is gone')
end
redis.call('HSET', KEYS[1], 'at', at)
redis.call('HSET', KEYS[3], 'stock', stock + delta)
if cause == 'opening' then
    redis.call('HSET', KEYS[3], 'price', ARGV[6], 'limit', ARGV[7])
end
if delta > 0 or cause == 'healing' then
    redis.call('HDEL', KEYS[3], 'sold_out')
    redis.call('PUBLISH', KEYS[4], ARGV[2])
end
return {entry, stock + delta}
