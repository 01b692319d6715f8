-- wrk: people who log in with the wrong password, which costs the server as much as the right one.
--   wrk … -s login_storm.lua URL -- USER_NAMES_FILE PAUSE_MS
-- Each connection waits PAUSE_MS between two tries. Without it the refusals of a full queue (429) would come so fast that the run
-- would measure a flood of HTTP requests, not logins.

local prepared = {}
local turn = 0
local pause_ms = 0

function init(args)
  pause_ms = tonumber(args[2])
  for name in io.lines(args[1]) do
    local headers = { ["Content-Type"] = "application/x-www-form-urlencoded" }
    prepared[#prepared + 1] = wrk.format("POST", "/api/auth/login", headers, "username=" .. name .. "&password=not-the-password")
  end
end

function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end

function delay()
  return pause_ms
end

queue_full = 0 -- global: done() reads it out of the thread

function response(status)
  if status == 429 then queue_full = queue_full + 1 end
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary)
  local full = 0
  for _, thread in ipairs(threads) do full = full + thread:get("queue_full") end
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "refused": %d, "queue_full": %d}\n',
    summary.requests, summary.duration / 1e6, summary.errors.status, full))
end
