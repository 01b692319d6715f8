-- Takes an order back, once: its units go on sale again, its buyer's limit has room again, and the sales log says so, in one step.
-- That an order was cancelled in an earlier epoch is for the store to know; in this one the mark of it lies here (gate_cancel() in
-- gate_books.h says why the two together suffice).
--
-- KEYS  as in common.lua, and 5 the order's mark ("{doorbuster}:cancelled:<order>")   6 channel that clears the sold-out marks
-- ARGV  1 order   2 its buyer   3 actor (user id)   then for each of its parts, components too: product, units
-- Gives {entry id, done}: done is 0 if the order was cancelled already; the entry is that one's.
-- Errors: as in common.lua.

local MARK_LIFETIME_S = 86400 -- longer than anybody stands still between asking the store and calling this

local earlier = redis.call('GET', KEYS[5])
if earlier then
    if not string.find(earlier, '^%d+%-%d+$') then
        return redis.error_reply('DAMAGED the mark of a cancelled order')
    end
    return {earlier, 0}
end

local user, all = ARGV[2], {}
for i = 4, #ARGV, 2 do
    local id, units = ARGV[i], tonumber(ARGV[i + 1])
    local product = products[id] or load(id)
    if not product.known then
        damaged = damaged or id -- an order was made of it
    elseif product.stock then
        product.stock = product.stock + units
    end
    if not product.back then
        product.back = 0
        all[#all + 1] = product
    end
    product.back = product.back + units
end
for _, product in ipairs(all) do
    if product.known and product.limit > 0 and owned_by(product, user) < product.back then
        damaged = product.id
    end
end
if damaged then
    return redis.error_reply('DAMAGED product ' .. damaged)
end

local lines = {ARGV[1] .. ' ' .. user .. ' ' .. ARGV[3]}
for i = 4, #ARGV, 2 do
    lines[#lines + 1] = ARGV[i] .. ' ' .. ARGV[i + 1] .. ' ' .. available(products[ARGV[i]])
end
local entry = append('cancel', table.concat(lines, '\n'))
if not entry then
    return redis.error_reply('DAMAGED the log is gone')
end
redis.call('HSET', KEYS[1], 'at', now_ms())
redis.call('SET', KEYS[5], entry, 'EX', MARK_LIFETIME_S)
for _, product in ipairs(all) do
    if product.stock then
        redis.call('HSET', product.key, 'stock', product.stock)
        redis.call('HDEL', product.key, 'sold_out')
    end
    if product.limit > 0 then
        redis.call('HSET', KEYS[4] .. product.id, user, product.owned[user] - product.back)
    end
end
redis.call('PUBLISH', KEYS[6], ARGV[1])
return {entry, 1}
