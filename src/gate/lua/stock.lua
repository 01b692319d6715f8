-- Every change by an admin or the system: a product's opening, a restock, a withdrawal, a healing (delta 0), a new price, another window. Appends
-- it to the sales log in the same step.
--
-- KEYS  as in common.lua, and 5 prefix of the changes' idempotency keys ("{doorbuster}:change:")   6 channel that clears the sold-out marks
-- ARGV  1 what ("opening", "restock", "withdrawal", "healing", "price", "window")   2 product   3 delta, or the new price
--       4 actor (user id, 0 the system)   5 idempotency key or ""   6 note, one line
--       of an opening: 7 price   8 customer limit   9 opens at   10 over at (0: no limit, none)   11 "product:quantity …" of a bundle, or ""
--       of a window: 9 opens at   10 over at, each in ms, or 0 (none), -1 (as it is), -2 (now, by the clock that windows are judged by)
-- Gives {entry id, stock afterwards (of a price: the price before; of a window: over at), product, delta or new price (of a window: opens at),
--       done, "stock", "price" or "window"}. done is 0 if nothing was changed: the product is open already (entry id: false), or the key stands
--       for an earlier change, which is what is given.
-- Errors: as in common.lua, CLOSED (no such product, or a bundle, whose stock is its components'), SHORT (less in stock than is to be
--       withdrawn), FULL (too much stock), NEVER (a window that is over before it opens).

local KEY_LIFETIME_S, STOCK_MAX = 86400, 1000000000

local what, id, figure, actor, key, note = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6]
local is_opening, is_price, is_window = what == 'opening', what == 'price', what == 'window'
local key_name = KEYS[5] .. actor .. ':' .. key
if key ~= '' then
    local earlier = redis.call('GET', key_name)
    if earlier then
        local entry, product, done, after, kind = string.match(earlier, '^(%d+%-%d+) (%d+) (%-?%d+) (%d+) (%a+)$')
        if not entry then
            return redis.error_reply('DAMAGED the key of a change')
        end
        return {entry, tonumber(after), tonumber(product), tonumber(done), 0, kind}
    end
end

local product = load(id)
if damaged then
    return redis.error_reply('DAMAGED product ' .. damaged)
end
if is_opening then
    if product.known then
        return {false, available(product), tonumber(id), figure, 0, 'stock'}
    end
    product.stock = 0
elseif not product.known or (not product.stock and what ~= 'healing' and not is_price and not is_window) then
    return redis.error_reply('CLOSED no such product, or it is a bundle')
end

local delta = (is_price or is_window) and 0 or figure
local stock = (product.stock or 0) + delta
if stock < 0 then
    return redis.error_reply('SHORT only ' .. product.stock .. ' in stock')
end
if delta > 0 and stock > STOCK_MAX then
    return redis.error_reply('FULL a product holds at most ' .. STOCK_MAX)
end

-- A time as it is asked for, which may be too large a number for Lua to print by itself.
local function resolve(asked, kept)
    local at = asked == '-1' and kept or asked == '-2' and clock_ms() or tonumber(asked)
    return at, string.format('%d', at)
end

local line, starts, ends, starts_text, ends_text
if is_window then
    starts, starts_text = resolve(ARGV[9], product.starts)
    ends, ends_text = resolve(ARGV[10], product.ends)
    if ends > 0 and ends <= starts then
        return redis.error_reply('NEVER open: over before it opens')
    end
    line = string.format('%s %d %d %s %s %s %s', id, product.starts, product.ends, starts_text, ends_text, actor, note)
elseif is_price then
    line = id .. ' ' .. product.price .. ' ' .. ARGV[3] .. ' ' .. actor .. ' ' .. note
else
    line = id .. ' ' .. ARGV[3] .. ' ' .. stock .. ' ' .. what .. ' ' .. actor .. ' ' .. note
end
local kind = is_price and 'price' or is_window and 'window' or 'stock'
local entry = append(kind, line .. (key ~= '' and '\nkey ' .. key or ''))
if not entry then
    return redis.error_reply('DAMAGED the log is gone')
end
local after = is_price and product.price_number or is_window and ends or stock
local done = is_window and starts_text or ARGV[3]
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
elseif is_window then
    redis.call('HSET', product.key, 'starts', starts_text, 'ends', ends_text)
elseif product.stock then
    redis.call('HSET', product.key, 'stock', stock)
end
if key ~= '' then
    redis.call('SET', key_name, string.format('%s %s %s %d %s', entry, id, done, after, kind), 'EX', KEY_LIFETIME_S)
end
if delta > 0 or what == 'healing' then
    redis.call('HDEL', product.key, 'sold_out')
end
if delta > 0 or what == 'healing' or is_window then
    redis.call('PUBLISH', KEYS[6], id)
end
return {entry, after, tonumber(id), tonumber(done), 1, kind}
