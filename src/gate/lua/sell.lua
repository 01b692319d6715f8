-- Who may buy. One call sells to a whole batch of buyers, in their order, and appends what it sold to the sales log: one atomic step.
-- Everything is checked first and written after; a refusal leaves no trace but the time of a product's first sold-out answer.
--
-- KEYS  as in common.lua, and 5 prefix of idempotency keys ("{doorbuster}:idem:")
-- ARGV  1 fields of a purchase: 4, 5 if any of the call has a key, 6 if any is a cart; then for each purchase:
--         request, user, product, quantity[, key or ""[, number of further lines of the cart, and for each: product, quantity]]
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
    local buyers = product.buyers
    product.owned[user] = units
    buyers[#buyers + 1] = user
    buyers[#buyers + 1] = units
end

-- Is the product on sale at all, and is it time? Else the refusal.
local function refuse_product(product)
    if not product.known then
        return -3, tonumber(product.id), 0
    end
    if product.starts > 0 and clock_ms() < product.starts then
        return -6, {tonumber(product.id), product.starts, product.starts - clock_ms()}, 0
    end
    if product.ends > 0 and clock_ms() >= product.ends then
        return -7, {tonumber(product.id), product.ends, 0}, 0
    end
end

-- A bundle is on sale while all that it is made of is.
local function refuse_to_open(product)
    local outcome, second, third = refuse_product(product)
    for _, component in ipairs(product.components) do
        if not outcome then
            outcome, second, third = refuse_product(component.product)
        end
    end
    return outcome, second, third
end

-- One line of a product that is on sale and no bundle: nearly all purchases. `key` as it stands in the log, with its blank; or nothing.
local function decide_one(request, user, product, quantity_text, key)
    local quantity = tonumber(quantity_text)
    if not product.is_simple then
        local outcome, second, third = refuse_product(product)
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
    local line = format('%d %s %s %s %s %s %d', order, request, user, product.id, quantity_text, product.price, product.stock)
    log[#log + 1] = key == '' and line or line .. key
    return order, product.price_number, product.stock
end

-- --- carts and bundles: all lines or none. `wanted` and `units` are side by side: line i is units[i] of wanted[i].

-- What the lines take of products with a limit, components too.
local function sum_limited(wanted, units)
    local sums, limited = {}, {}
    local function add(product, quantity)
        if product.limit > 0 then
            if not sums[product] then
                limited[#limited + 1] = product
            end
            sums[product] = (sums[product] or 0) + quantity
        end
    end
    for i, product in ipairs(wanted) do
        add(product, units[i])
        for _, component in ipairs(product.components) do
            add(component.product, component.quantity * units[i])
        end
    end
    return sums, limited
end

-- Refused if it is more than this customer may have; else noted.
local function refuse_over_limit(user, wanted, units)
    local sums, limited = sum_limited(wanted, units)
    for _, product in ipairs(limited) do
        local owned = owned_by(product, user)
        if owned + sums[product] > product.limit then
            return -2, {tonumber(product.id), sums[product], owned, product.limit}
        end
    end
    for _, product in ipairs(limited) do
        touch(product)
        own(product, user, owned_by(product, user) + sums[product])
    end
end

local function move_stock(product, quantity)
    if product.stock then
        product.stock = product.stock + quantity
    end
    for _, component in ipairs(product.components) do
        component.product.stock = component.product.stock + component.quantity * quantity
    end
end

-- What the log says of a line that was just taken. Gives what is left.
local function write_line(begin, product, quantity, key)
    local left = available(product)
    log[#log + 1] = format('%s %s %d %s %d%s', begin, product.id, quantity, product.price, left, key)
    for _, component in ipairs(product.components) do
        log[#log + 1] = format('- %s %d %d', component.product.id, component.quantity * quantity, component.product.stock)
    end
    return left
end

-- Takes and writes down each line that can be had beside those before it. Gives price and what is left of each; and, if there are any, the lines
-- that cannot: line from 0, how many there were.
local function try_lines(request, user, wanted, units, key)
    local answer, short = {}, nil
    local begin = format('%d %s %s', order + 1, request, user)
    for i = 1, #wanted do
        local product, quantity = wanted[i], units[i]
        local have = available(product)
        if have < quantity then
            short = short or {}
            short[#short + 1] = i - 1
            short[#short + 1] = have
        else
            move_stock(product, -quantity)
            answer[2 * i - 1], answer[2 * i] = product.price_number, write_line(begin, product, quantity, key)
        end
        begin, key = '+', ''
    end
    return answer, short
end

-- Undoes try_lines(), of which the log was `length` long before.
local function put_back(wanted, units, short, length)
    local next_short = 1
    for i, product in ipairs(wanted) do
        if short[next_short] == i - 1 then
            next_short = next_short + 2
        else
            move_stock(product, units[i])
        end
    end
    for i = #log, length + 1, -1 do
        log[i] = nil
    end
end

local function note_short(wanted, short)
    for i = 1, #short, 2 do
        local product = wanted[short[i] + 1]
        note_sold_out(product)
        for _, component in ipairs(product.components) do
            note_sold_out(component.product)
        end
    end
end

local function note_sold(product)
    if product.stock then
        take(product, 0)
    end
    for _, component in ipairs(product.components) do
        take(component.product, 0)
    end
end

local function decide_lines(request, user, wanted, units, key)
    local has_limit
    for i = 1, #wanted do
        local product = wanted[i]
        if not product.is_simple then
            local outcome, second, third = refuse_to_open(product)
            if outcome then
                return outcome, second, third
            end
        end
        has_limit = has_limit or product.limit > 0 or product.components ~= NONE
    end
    local length = #log
    local answer, short = try_lines(request, user, wanted, units, key)
    if short then
        put_back(wanted, units, short, length)
        note_short(wanted, short)
        return -1, short, 0
    end
    local outcome, second
    if has_limit then
        outcome, second = refuse_over_limit(user, wanted, units)
    end
    if outcome then
        put_back(wanted, units, NONE, length)
        return outcome, second, 0
    end
    order = order + 1
    for i = 1, #wanted do
        note_sold(wanted[i])
    end
    return order, answer, 0
end

-- `at`: where the further lines stand in ARGV, behind their number.
local function decide_cart(request, user, product, quantity_text, key, at)
    local wanted, units = {product}, {tonumber(quantity_text)}
    for i = 1, tonumber(ARGV[at]) do
        local id = ARGV[at + 2 * i - 1]
        wanted[i + 1] = products[id] or load(id)
        units[i + 1] = tonumber(ARGV[at + 2 * i])
    end
    return decide_lines(request, user, wanted, units, key)
end

-- Alone, a bundle is answered like any single purchase.
local function decide_bundle(request, user, product, quantity_text, key)
    local outcome, second, third = decide_lines(request, user, {product}, {tonumber(quantity_text)}, key)
    if outcome > 0 then
        return outcome, second[1], second[2]
    elseif outcome == -1 then
        return outcome, second[2], 0
    end
    return outcome, second, third
end

local function decide(request, user, product, quantity_text, key, cart_at)
    if cart_at then
        return decide_cart(request, user, product, quantity_text, key, cart_at)
    elseif not product.known then
        return -3, tonumber(product.id), 0
    elseif product.stock then
        return decide_one(request, user, product, quantity_text, key)
    end
    return decide_bundle(request, user, product, quantity_text, key)
end

-- A refusal is not kept: the same key may ask again.
local function decide_once(request, user, product, quantity_text, key, cart_at)
    local name = KEYS[5] .. user .. ':' .. key
    local earlier = ordered[name] or redis.call('GET', name)
    if earlier then
        if not is_whole(tostring(earlier), 14) then
            damaged = product.id
        end
        return -5, tonumber(earlier) or 0, 0
    end
    local outcome, second, third = decide(request, user, product, quantity_text, ' ' .. key, cart_at)
    if outcome > 0 then
        ordered[name] = outcome
        new_keys[#new_keys + 1] = name
    end
    return outcome, second, third
end

local i, out, fields, count = 2, 2, tonumber(ARGV[1]), #ARGV
while i <= count do
    local id = ARGV[i + 2]
    local product = products[id] or load(id)
    local key, cart_at = fields > 4 and ARGV[i + 4] or '', nil
    local decide_it, next_i = key ~= '' and decide_once or decide, i + fields
    if fields == 6 and ARGV[i + 5] ~= '0' then
        cart_at = i + 5
        next_i = next_i + 2 * tonumber(ARGV[cart_at])
    end
    reply[out + 1], reply[out + 2], reply[out + 3] = decide_it(ARGV[i], ARGV[i + 1], product, ARGV[i + 3], key, cart_at)
    i, out = next_i, out + 3
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
        redis.call('HSET', KEYS[1], 'orders', order, 'at', reply[2])
    end
    for _, product in ipairs(touched) do
        if product.sold then
            redis.call('HSET', product.key, 'stock', format('%d', product.stock)) -- Redis itself would print it with 17 digits
        end
        if product.sold_out_is_new then
            redis.call('HSET', product.key, 'sold_out', product.sold_out .. ' ' .. now_ms())
        end
        if product.buyers and #product.buyers > 0 then
            redis.call('HSET', KEYS[4] .. product.id, unpack(product.buyers))
        end
    end
    for _, name in ipairs(new_keys) do
        redis.call('SET', name, ordered[name], 'EX', KEY_LIFETIME_S)
    end
end
return reply
