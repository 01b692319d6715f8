-- Who may buy. One call sells to a whole batch of buyers, in their order, and appends what it sold to the sales log: one atomic step.
-- Everything is checked first and written after; a refusal leaves no trace but the time of a product's first sold-out answer.
--
-- KEYS  1 head   2 log   3 prefix of products ("{doorbuster}:product:")   4 prefix of buyers ("{doorbuster}:buyers:")
--       5 prefix of idempotency keys ("{doorbuster}:idem:")
-- ARGV  1 fields of a purchase: 4, or 5 if any of the call has a key   then for each purchase: request, user, product, quantity[, key or ""]
-- Gives {entry id, time in ms, and for each purchase three numbers}:
--   sold                  order, unit price, remaining
--   insufficient stock    -1, available, 0
--   customer limit        -2, units owned already, limit
--   not on sale           -3, 0, 0
--   already ordered       -5, the order that the key stands for, 0
-- or the error STALE, when this text's epoch is not the head's: then nothing was sold, ask again with the new script;
-- or DAMAGED, when something is there that we did not write, or not there that we did: nothing was sold, the recorder has to mend it.
-- Numbers stay below 10^14, so that Lua prints them as integers.

local EPOCH = '@EPOCH@' -- filled in by the recorder when it loads the script
local KEY_LIFETIME_S = 86400

local head = redis.call('HMGET', KEYS[1], 'epoch', 'orders', 'at')
if head[1] ~= EPOCH then
    return redis.error_reply('STALE the gate was opened anew; read the head again')
end

-- Whole numbers only: whatever else there is, somebody else wrote.
local function is_whole(text, digits)
    return text and #text <= digits and not string.find(text, '%D')
end
if not (is_whole(head[2], 14) and is_whole(head[3], 14)) then
    return redis.error_reply('DAMAGED the head')
end
local damaged
local order = tonumber(head[2])
local products, touched, format = {}, {}, string.format
local reply, lines = {false, 0}, {}
local ordered, new_keys = {}, {} -- by name of an idempotency key: its order, of this call; the names in order

local function load(id)
    local fields = redis.call('HMGET', KEYS[3] .. id, 'stock', 'price', 'limit', 'sold_out')
    local known = fields[1] or fields[2] -- neither: not on sale
    if known and not (is_whole(fields[1], 10) and is_whole(fields[2], 13) and is_whole(fields[3] or '0', 13)) then
        damaged = id
    end
    local product = {
        id = id,
        stock = not damaged and tonumber(fields[1]), -- missing means closed, never zero
        price = fields[2],
        price_number = tonumber(fields[2]),
        limit = tonumber(fields[3] or '0'),
        sold_out = fields[4],
        owned = {}, -- by user: units after this batch
        buyers = {} -- user, units, user, units …: what HSET will be given
    }
    products[id] = product
    return product
end

local function owned_by(product, user)
    local units = product.owned[user]
    if not units then
        units = redis.call('HGET', KEYS[4] .. product.id, user) or '0'
        if not is_whole(units, 13) then
            damaged, units = product.id, '0'
        end
        units = tonumber(units)
        product.owned[user] = units
    end
    return units
end

local function touch(product)
    if not product.touched then
        product.touched = true
        touched[#touched + 1] = product
    end
end

local function decide(request, user, product, quantity_text)
    local quantity = tonumber(quantity_text)
    if not product.stock then
        return -3, 0, 0
    end
    if product.stock < quantity then
        if product.stock == 0 and not product.sold_out then
            product.sold_out = order -- the last order before the first sold-out answer
            product.sold_out_is_new = true
            touch(product)
        end
        return -1, product.stock, 0
    end
    if product.limit > 0 then
        local owned = owned_by(product, user)
        if owned + quantity > product.limit then
            return -2, owned, product.limit
        end
        product.owned[user] = owned + quantity
        product.buyers[#product.buyers + 1] = user
        product.buyers[#product.buyers + 1] = owned + quantity
    end
    order = order + 1
    product.stock = product.stock - quantity
    product.sold = true
    touch(product)
    lines[#lines + 1] = format('%d %s %s %s %s %s %d', order, request, user, product.id, quantity_text, product.price,
        product.stock)
    return order, product.price_number, product.stock
end

-- A refusal is not kept: the same key may ask again.
local function decide_once(request, user, product, quantity_text, key)
    local name = KEYS[5] .. user .. ':' .. key
    local earlier = ordered[name] or redis.call('GET', name)
    if earlier then
        if not is_whole(tostring(earlier), 14) then
            damaged = product.id
        end
        return -5, tonumber(earlier), 0
    end
    local outcome, second, third = decide(request, user, product, quantity_text)
    if outcome > 0 then
        ordered[name] = outcome
        new_keys[#new_keys + 1] = name
        lines[#lines] = lines[#lines] .. ' ' .. key
    end
    return outcome, second, third
end

local out, fields = 2, tonumber(ARGV[1])
local has_keys = fields == 5
for i = 2, #ARGV, fields do
    local id = ARGV[i + 2]
    local product = products[id] or load(id)
    if has_keys and ARGV[i + 4] ~= '' then
        reply[out + 1], reply[out + 2], reply[out + 3] = decide_once(ARGV[i], ARGV[i + 1], product, ARGV[i + 3], ARGV[i + 4])
    else
        reply[out + 1], reply[out + 2], reply[out + 3] = decide(ARGV[i], ARGV[i + 1], product, ARGV[i + 3])
    end
    out = out + 3
end

if damaged then
    return redis.error_reply('DAMAGED product ' .. damaged)
end
if #touched > 0 then
    local clock = redis.call('TIME')
    -- Never back, also when the machine's clock is.
    local at = math.max(clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(head[3]))
    -- The log first: it is the one write that can be refused for another reason than memory (an epoch older than the log's), and then
    -- nothing has been changed.
    if #lines > 0 then
        reply[1] = redis.call('XADD', KEYS[2], 'NOMKSTREAM', EPOCH .. '-*', 'sale', at .. '\n' .. table.concat(lines, '\n'))
        if not reply[1] then
            return redis.error_reply('DAMAGED the log is gone')
        end
        reply[2] = at
        redis.call('HSET', KEYS[1], 'orders', order, 'at', at)
    end
    for _, product in ipairs(touched) do
        if product.sold then
            redis.call('HSET', KEYS[3] .. product.id, 'stock', product.stock)
        end
        if product.sold_out_is_new then
            redis.call('HSET', KEYS[3] .. product.id, 'sold_out', product.sold_out .. ' ' .. at)
        end
        if #product.buyers > 0 then
            redis.call('HSET', KEYS[4] .. product.id, unpack(product.buyers))
        end
    end
    for _, name in ipairs(new_keys) do
        redis.call('SET', name, ordered[name], 'EX', KEY_LIFETIME_S)
    end
end
return reply
