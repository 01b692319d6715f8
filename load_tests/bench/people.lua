-- wrk: what the people do whose tokens are in a file, in turn: purchases of one unit a line, of products at random; or looks.
--   wrk … -s people.lua URL -- TOKENS_FILE LINES PRODUCT_ID…
--   wrk … -s people.lua URL -- TOKENS_FILE look PATH…
-- LINES 1: single purchases; more: carts of that many different products.
-- The requests are put together once, before the clock starts: wrk shares the machine with the server.

local PREPARED = 1024 -- as many whatever is bought, or the figures would tell of wrk's memory
local prepared = {}
local turn = 0

local function read_tokens(path)
  local tokens = {}
  for token in io.lines(path) do tokens[#tokens + 1] = token end
  return tokens
end

-- Puts `count` different products, at random, at the front.
local function shuffle(products, count)
  for i = 1, count do
    local other = math.random(i, #products)
    products[i], products[other] = products[other], products[i]
  end
end

local function body_of(products, lines)
  shuffle(products, lines)
  local items = {}
  for i = 1, lines do items[i] = string.format('{"product_id":%d,"quantity":1}', products[i]) end
  return lines == 1 and items[1] or '{"items":[' .. table.concat(items, ",") .. "]}"
end

function init(args)
  local tokens, lines, wanted = read_tokens(args[1]), tonumber(args[2]), {}
  for i = 3, #args do wanted[#wanted + 1] = lines and tonumber(args[i]) or args[i] end
  for i = 1, PREPARED do
    local headers = { ["Authorization"] = "Bearer " .. tokens[(i - 1) % #tokens + 1] }
    if lines then
      headers["Content-Type"] = "application/json"
      prepared[i] = wrk.format("POST", "/api/purchases", headers, body_of(wanted, lines))
    else
      prepared[i] = wrk.format("GET", wanted[(i - 1) % #wanted + 1], headers)
    end
  end
end

function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end

-- No response(): it would make wrk parse every header. What came back is in errors.status, the answers of 400 and above.
function done(summary, latency)
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, "timeouts": %d, "p50_us": %.0f, "p99_us": %.0f}\n',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write, summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
