-- Who may buy. One call sells to a whole batch of buyers, in their order, and appends what it sold to the sales log: one atomic step.
-- Everything is checked first and written after; a refusal leaves no trace but the time of a product's first sold-out answer.
--
-- KEYS  as in common.lua, and 5 prefix of idempotency keys ("{doorbuster}:idem:")
-- ARGV  1 fields of a purchase: 4, 5 if any of the call has a key, 6 if any is a cart; then for each purchase:
--         request, user, product, quantity[, key or ""[, further lines of the cart, "product:quantity product:quantity …", or ""]]
-- Gives {entry id, time in ms, and for each purchase three:}
--   sold                  order, unit price, remaining      of a cart: order, {unit price, remaining, …} line by line, 0
--   insufficient stock    -1, available, 0                  of a cart: -1, {line from 0, available, …} of those that cannot be had, 0
--   customer limit        -2, {product, units in the cart, owned already, limit}, 0
--   not on sale           -3, product, 0
--   already ordered       -5, the order that the key stands for, 0
--   not open yet          -6, {product, opens at, in so many ms}, 0
--   over                  -7, {product, was over at, 0}, 0

local KEY_LIFETIME_S = 86400

local order = tonumber(head[2])
local touched, format = {}, string.format
local reply, log = {false, 0}, {}
local ordered, new_keys = {}, {} -- by name of an idempotency key: its order, of this call; the names in order

local function touch(product)
    if not product.touched then
        product.touched = true
        touched[#touched + 1] = product
    end
end

local function note_sold_out(product)
    if product.stock == 0 and not product.sold_out then
        product.sold_out = order -- the last order before the first sold-out answer
        product.sold_out_is_new = true
        touch(product)
    end
end

local function take(product, units)
    product.stock = product.stock - units
    product.sold = true
    touch(product)
end

local function own(product, user, units)
    product.owned[user] = units
    product.buyers[#product.buyers + 1] = user
    product.buyers[#product.buyers + 1] = units
end

-- Is the product on sale at all, and is it time? Else the refusal.
local function refuse_to_open(product)
    if not product.known then
        return -3, tonumber(product.id), 0
    end
    if now_ms() < product.starts then
        return -6, {tonumber(product.id), product.starts, product.starts - now_ms()}, 0
    end
    if product.ends > 0 and now_ms() >= product.ends then
        return -7, {tonumber(product.id), product.ends, 0}, 0
    end
end

-- One line of a product that is no bundle: nearly all purchases.
local function decide_one(request, user, product, quantity_text, key)
    local quantity = tonumber(quantity_text)
    if product.starts > 0 or product.ends > 0 then
        local outcome, second, third = refuse_to_open(product)
        if outcome then
            return outcome, second, third
        end
    end
    if product.stock < quantity then
        note_sold_out(product)
        return -1, product.stock, 0
    end
    if product.limit > 0 then
        local owned = owned_by(product, user)
        if owned + quantity > product.limit then
            return -2, {tonumber(product.id), quantity, owned, product.limit}, 0
        end
        own(product, user, owned + quantity)
    end
    order = order + 1
    take(product, quantity)
    log[#log + 1] = format('%d %s %s %s %s %s %d%s', order, request, user, product.id, quantity_text, product.price,
        product.stock, key)
    return order, product.price_number, product.stock
end

-- What the lines take of each product, components too: for the limits.
local function sum_up(lines)
    local units, all = {}, {}
    local function add(product, quantity)
        if not units[product] then
            all[#all + 1] = product
        end
        units[product] = (units[product] or 0) + quantity
    end
    for _, line in ipairs(lines) do
        add(line.product, line.quantity)
        for _, component in ipairs(line.product.components or {}) do
            add(component.product, component.quantity * line.quantity)
        end
    end
    return units, all
end

-- Takes each line that can be had beside those before it, and notes how many there were of the others. `stock` is all that changes.
local function try_lines(lines)
    local short = {}
    for i, line in ipairs(lines) do
        local product = line.product
        local have = available(product)
        if have < line.quantity then
            short[#short + 1] = i - 1
            short[#short + 1] = have
        elseif product.components then
            for _, component in ipairs(product.components) do
                component.product.stock = component.product.stock - component.quantity * line.quantity
            end
        else
            product.stock = product.stock - line.quantity
        end
    end
    return short
end

local function note_short(lines, short)
    for i = 1, #short, 2 do
        local product = lines[short[i] + 1].product
        if not product.components then
            note_sold_out(product)
        end
        for _, component in ipairs(product.components or {}) do
            note_sold_out(component.product)
        end
    end
end

-- The lines are had: takes them, writes them down. Gives price and remaining of each.
local function sell_lines(request, user, lines, key)
    local answer = {}
    order = order + 1
    for i, line in ipairs(lines) do
        local product = line.product
        for _, component in ipairs(product.components or {}) do
            take(component.product, component.quantity * line.quantity)
        end
        if not product.components then
            take(product, line.quantity)
        end
        local begin = i == 1 and format('%d %s %s', order, request, user) or '+'
        log[#log + 1] = format('%s %s %d %s %d%s', begin, product.id, line.quantity, product.price, available(product),
            i == 1 and key or '')
        for _, component in ipairs(product.components or {}) do
            log[#log + 1] = format('- %s %d %d', component.product.id, component.quantity * line.quantity,
                component.product.stock)
        end
        answer[#answer + 1] = product.price_number
        answer[#answer + 1] = available(product)
    end
    return answer
end

-- All lines or none.
local function decide_lines(request, user, lines, key)
    local units, all = sum_up(lines)
    for _, product in ipairs(all) do
        local outcome, second, third = refuse_to_open(product)
        if outcome then
            return outcome, second, third
        end
    end
    local before = {}
    for _, product in ipairs(all) do
        before[product] = product.stock
    end
    local short = try_lines(lines)
    for _, product in ipairs(all) do
        product.stock = before[product]
    end
    if #short > 0 then
        note_short(lines, short)
        return -1, short, 0
    end
    for _, product in ipairs(all) do
        if product.limit > 0 and owned_by(product, user) + units[product] > product.limit then
            return -2, {tonumber(product.id), units[product], owned_by(product, user), product.limit}, 0
        end
    end
    for _, product in ipairs(all) do
        if product.limit > 0 then
            touch(product)
            own(product, user, owned_by(product, user) + units[product])
        end
    end
    return order + 1, sell_lines(request, user, lines, key), 0
end

local function read_lines(product, quantity_text, more)
    local lines = {{product = product, quantity = tonumber(quantity_text)}}
    for id, quantity in string.gmatch(more, '(%d+):(%d+)') do
        lines[#lines + 1] = {product = products[id] or load(id), quantity = tonumber(quantity)}
    end
    return lines
end

-- `key`: as it stands in the log, with its blank; or nothing.
local function decide(request, user, product, quantity_text, key, more)
    if more ~= '' then
        return decide_lines(request, user, read_lines(product, quantity_text, more), key)
    end
    if not product.known then
        return -3, tonumber(product.id), 0
    end
    if not product.components then
        return decide_one(request, user, product, quantity_text, key)
    end
    local outcome, second, third = decide_lines(request, user, read_lines(product, quantity_text, ''), key)
    if outcome > 0 then
        return outcome, second[1], second[2]
    elseif outcome == -1 then
        return outcome, second[2], 0
    end
    return outcome, second, third
end

-- A refusal is not kept: the same key may ask again.
local function decide_once(request, user, product, quantity_text, key, more)
    local name = KEYS[5] .. user .. ':' .. key
    local earlier = ordered[name] or redis.call('GET', name)
    if earlier then
        if not is_whole(tostring(earlier), 14) then
            damaged = product.id
        end
        return -5, tonumber(earlier) or 0, 0
    end
    local outcome, second, third = decide(request, user, product, quantity_text, ' ' .. key, more)
    if outcome > 0 then
        ordered[name] = outcome
        new_keys[#new_keys + 1] = name
    end
    return outcome, second, third
end

local out, fields = 2, tonumber(ARGV[1])
for i = 2, #ARGV, fields do
    local id = ARGV[i + 2]
    local product = products[id] or load(id)
    local key, more = fields > 4 and ARGV[i + 4] or '', fields > 5 and ARGV[i + 5] or ''
    local decide_it = key ~= '' and decide_once or decide
    reply[out + 1], reply[out + 2], reply[out + 3] = decide_it(ARGV[i], ARGV[i + 1], product, ARGV[i + 3], key, more)
    out = out + 3
end

if damaged then
    return redis.error_reply('DAMAGED product ' .. damaged)
end
if #touched > 0 then
    if #log > 0 then
        reply[1] = append('sale', table.concat(log, '\n'))
        if not reply[1] then
            return redis.error_reply('DAMAGED the log is gone')
        end
        reply[2] = now_ms()
        redis.call('HSET', KEYS[1], 'orders', order, 'at', now_ms())
    end
    for _, product in ipairs(touched) do
        if product.sold then
            redis.call('HSET', KEYS[3] .. product.id, 'stock', product.stock)
        end
        if product.sold_out_is_new then
            redis.call('HSET', KEYS[3] .. product.id, 'sold_out', product.sold_out .. ' ' .. now_ms())
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
