-- What every script begins with: the fence, the clock, the log, products. The recorder loads it in front of each of the others.
--
-- KEYS  1 head   2 log   3 prefix of products ("{doorbuster}:product:")   4 prefix of buyers ("{doorbuster}:buyers:")
--       3 and 4 are no keys, and must be among them: a node of a Cluster whose slot is on the move refuses a call that names a key which is not there, before
--       it runs; else a command in the midst of it would be refused, with half of it done (ADR 17).
-- Errors: STALE, when this text's epoch is not the head's, or the Redis is not in the same reign as a master any more as when the recorder loaded this text
--         (its replication id is another): nothing was changed, ask again with the new script;
--         READONLY, from a Redis that is a replica by now: likewise, ask another;
--         DAMAGED, when something is there that we did not write, or not there that we did: nothing was changed, the recorder has to mend it.
-- Numbers stay below 10^14, so that Lua prints them as integers.

local EPOCH, MASTER = '@EPOCH@', '@MASTER@' -- filled in by the recorder when it loads the script

-- A Redis that was demoted, took over another's data and was promoted again still has this script, but perhaps not all that was sold by it.
local info = redis.call('INFO', 'replication')
if not string.find(info, 'master_replid:' .. MASTER, 1, true) then
    if string.find(info, 'role:slave', 1, true) then
        return redis.error_reply('READONLY this Redis is a replica now')
    end
    return redis.error_reply('STALE another reign of a master has begun; read the head again')
end
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
local damaged -- the product that is

-- Milliseconds since 1970, as the machine has it: for sale windows.
local clock
local function clock_ms()
    if not clock then
        local time = redis.call('TIME')
        clock = time[1] * 1000 + math.floor(time[2] / 1000)
    end
    return clock
end

-- The log's time never goes back, also when the machine's does.
local function now_ms()
    return math.max(clock_ms(), tonumber(head[3]))
end

-- The entry's id; false: the log is gone. To be called before all other writes: it is the one that can be refused for another reason than
-- memory (an epoch older than the log's), and then nothing has been changed.
local function append(kind, text)
    return redis.call('XADD', KEYS[2], 'NOMKSTREAM', EPOCH .. '-*', kind, now_ms() .. '\n' .. text)
end

local products = {} -- by id, as they are after what was decided so far

local load
local function load_components(text)
    local components = {}
    for id, quantity in string.gmatch(text, '(%d+):(%d+)') do
        components[#components + 1] = {product = products[id] or load(id), quantity = tonumber(quantity)}
    end
    return components
end

local function is_sound(stock, price, limit, starts, ends, components)
    return (components or is_whole(stock, 10)) and is_whole(price, 13) and (limit == '0' or is_whole(limit, 13)) and
        (starts == '0' or is_whole(starts, 15)) and (ends == '0' or is_whole(ends, 15))
end

local NONE = {} -- the components of all that is no bundle

-- `known`: it is on sale. `stock`: not of a bundle, which has `components`.
function load(id)
    local key = KEYS[3] .. id
    local fields = redis.call('HMGET', key, 'stock', 'price', 'limit', 'sold_out', 'starts', 'ends', 'components')
    local stock, price, components = fields[1], fields[2], fields[7]
    local limit, starts, ends = fields[3] or '0', fields[5] or '0', fields[6] or '0'
    local product = {id = id, key = key, components = NONE}
    products[id] = product
    if not (stock or price) then
        return product -- missing means closed, never zero
    end
    if not is_sound(stock, price, limit, starts, ends, components) then
        damaged = id
        return product
    end
    product.known = true
    product.price, product.price_number = price, tonumber(price)
    product.sold_out = fields[4]
    product.starts, product.ends = tonumber(starts), tonumber(ends)
    product.limit = tonumber(limit)
    if product.limit > 0 then
        product.owned = {} -- by user: units after what was decided so far
        product.buyers = {} -- user, units, user, units …: what HSET will be given
    end
    if components then
        product.components = load_components(components)
    else
        product.stock = tonumber(stock)
        product.is_simple = product.starts == 0 and product.ends == 0 -- nothing but stock and limit to look at
    end
    return product
end

-- How many can be had; of a bundle, as many as its components allow.
local function available(product)
    if product.stock then
        return product.stock
    end
    local most
    for _, component in ipairs(product.components) do
        local allows = math.floor((component.product.stock or 0) / component.quantity)
        most = math.min(most or allows, allows)
    end
    return most or 0
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

