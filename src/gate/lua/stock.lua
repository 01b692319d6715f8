-- Every change by an admin or the system: a product's opening, a restock, a withdrawal, a healing (delta 0), a new price. Appends it to the
-- sales log in the same step.
--
-- KEYS  as in common.lua, and 5 prefix of the changes' idempotency keys ("{doorbuster}:change:")   6 channel that clears the sold-out marks
-- ARGV  1 what ("opening", "restock", "withdrawal", "healing", "price")   2 product   3 delta, or the new price
--       4 actor (user id, 0 the system)   5 idempotency key or ""   6 note, one line
--       of an opening: 7 price   8 customer limit   9 opens at   10 over at (0: no limit, none)   11 "product:quantity …" of a bundle, or ""
-- Gives {entry id, stock afterwards (of a price: the price before), product, delta or new price, done, is it a price}. done is 0 if nothing was
--       changed: the product is open already (entry id: false), or the key stands for an earlier change, which is what is given.
-- Errors: as in common.lua, CLOSED (no such product, or a bundle, whose stock is its components'), SHORT (less in stock than is to be
--       withdrawn), FULL (too much stock).

local KEY_LIFETIME_S, STOCK_MAX = 86400, 1000000000

local what, id, figure, actor, key, note = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local is_opening, is_price = what == 'opening', what == 'price'
local key_name = KEYS[5] .. actor .. ':' .. key
if key ~= '' then
    local earlier = redis.call('GET', key_name)
    if earlier then
        local entry, product, done, after, kind = string.match(earlier, '^(%d+%-%d+) (%d+) (%-?%d+) (%d+) (%a+)$')
        if not entry then
            return redis.error_reply('DAMAGED the key of a change')
        end
        return {entry, tonumber(after), tonumber(product), tonumber(done), 0, kind == 'price' and 1 or 0}
    end
end

local product = load(id)
if damaged then
    return redis.error_reply('DAMAGED product ' .. damaged)
end
if is_opening then
    if product.known then
        return {false, available(product), tonumber(id), figure, 0, 0}
    end
    product.stock = 0
elseif not product.known or (not product.stock and what ~= 'healing' and not is_price) then
    return redis.error_reply('CLOSED no such product, or it is a bundle')
end

local delta = is_price and 0 or figure
local stock = (product.stock or 0) + delta
if stock < 0 then
    return redis.error_reply('SHORT only ' .. product.stock .. ' in stock')
end
if delta > 0 and stock > STOCK_MAX then
    return redis.error_reply('FULL a product holds at most ' .. STOCK_MAX)
end

local line
if is_price then
    line = id .. ' ' .. product.price .. ' ' .. ARGV[3] .. ' ' .. actor .. ' ' .. note
else
    line = id .. ' ' .. ARGV[3] .. ' ' .. stock .. ' ' .. what .. ' ' .. actor .. ' ' .. note
end
local kind = is_price and 'price' or 'stock'
local entry = append(kind, line .. (key ~= '' and '\nkey ' .. key or ''))
if not entry then
    return redis.error_reply('DAMAGED the log is gone')
end
local after = is_price and product.price_number or stock
redis.call('HSET', KEYS[1], 'at', now_ms())
if is_opening then
    redis.call('HSET', product.key, 'price', ARGV[7], 'limit', ARGV[8], 'starts', ARGV[9], 'ends', ARGV[10])
    if ARGV[11] ~= '' then
        redis.call('HSET', product.key, 'components', ARGV[11])
    else
        redis.call('HSET', product.key, 'stock', stock)
    end
elseif is_price then
    redis.call('HSET', product.key, 'price', ARGV[3])
elseif product.stock then
    redis.call('HSET', product.key, 'stock', stock)
end
if key ~= '' then
    redis.call('SET', key_name, entry .. ' ' .. id .. ' ' .. ARGV[3] .. ' ' .. after .. ' ' .. kind, 'EX', KEY_LIFETIME_S)
end
if delta > 0 or what == 'healing' then
    redis.call('HDEL', product.key, 'sold_out')
    redis.call('PUBLISH', KEYS[6], id)
end
return {entry, after, tonumber(id), figure, 1, is_price and 1 or 0}
