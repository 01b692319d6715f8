-- wrk: purchases of one unit, by the people whose tokens are in a file, in turn.
--   wrk … -s purchases.lua URL -- TOKENS_FILE PRODUCT_ID
-- The requests are put together once, before the clock starts: wrk shares the machine with the server.

local prepared = {}
local turn = 0

function init(args)
  local body = string.format('{"product_id":%d,"quantity":1}', tonumber(args[2]))
  for token in io.lines(args[1]) do
    local headers = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
    prepared[#prepared + 1] = wrk.format("POST", "/api/purchases", headers, body)
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
