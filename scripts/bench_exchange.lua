#!/usr/bin/env atomo-lua
--- The exchange by itself, on the network that it runs on: gradients of 1 KB to 64 MB through each topology and
-- compressor. Prints time, bytes a rank, and the share of the link's rate that these bytes reach.
local atomo = require "atomo"
local C = require("atomo.ffi").C
local log = atomo.log

local opts = atomo.cli.parse {
  name = "bench_exchange.lua",
  about = "Exchanges made-up gradients over the ranks it is started on; medians of whole steps (encode, travel, " ..
    "decode) without any backward pass to hide behind. The link's rate is measured first, rank 0 to the last rank.",
  examples = {
    "sh scripts/netlab.sh run 4 100mbit -- build/atomo-lua scripts/bench_exchange.lua",
    "mpirun -n 2 build/atomo-lua scripts/bench_exchange.lua --sizes 64K,1M --compress 'none svd:ratio=64,bits=8'",
    "mpirun -n 8 build/atomo-lua scripts/bench_exchange.lua --topology sharded,allgather --json bench.jsonl",
  },
  options = {
    {"sizes", "string", "1K,16K,256K,4M,64M", "bytes of fp32 gradient, with K, M or G (1024s)"},
    {"topology", "string", "allreduce,allgather,ps,sharded,hierarchical", "those to run, where they can work"},
    {"compress", "string", "none svd:ratio=64,bits=8 entry:ratio=64", "compressors, separated by spaces"},
    {"repeat", "int", 5, "steps each is run after one that warms up; the median counts", min = 1},
    {"seconds", "number", 20, "gives a case up after so long, with the steps done", min = 0, unit = "s"},
    {"down", "choice", "dense", "the way back from a ps", choices = {"dense", "compress"}},
    {"threads", "int", 1, "threads a rank", min = 1},
    {"json", "string", "", "file to append one JSON object a case to"},
  },
}

local world = atomo.mpi.world
atomo.set_num_threads(opts.threads)

local function say(...) if world.rank == 0 then print(string.format(...)) end end

local function parse_size(text)
  local n, unit = text:match "^(%d+)([KMG]?)$"
  local bytes = n and tonumber(n) * ({[""] = 1, K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30})[unit]
  if not bytes or bytes < 4 then error(("bench_exchange: size '%s', expected e.g. 64K or 4M"):format(text), 0) end
  return bytes
end

--- Bytes a second from rank 0 to the last rank: the better of two messages that take a while.
local function link_rate()
  if world.size == 1 then return nil end
  local best, n, took = 0, 2 ^ 18, atomo.zeros(1)
  repeat -- larger until it takes 0.3 s
    n = n * 4
    local t = atomo.zeros(n / 4)
    world:barrier()
    local from, answer = C.atomo_time(), atomo.zeros(1)
    if world.rank == 0 then
      world:send(t, world.size - 1)
      world:recv(answer, world.size - 1)
    elseif world.rank == world.size - 1 then
      world:recv(t, 0)
      world:send(answer, 0)
    end
    took:fill_(C.atomo_time() - from)
    world:bcast(took, 0)
    best = math.max(best, n / took:item())
    t:free()
  until took:item() > 0.3 or n >= 2 ^ 28
  return best
end

--- Layers of at most 2.25 MB, 4 bytes an entry: low rank and noise, as gradients are.
local function gradients(bytes)
  local list, left = {}, math.floor(bytes / 4)
  atomo.manual_seed(world.rank + 1)
  while left > 0 do
    local n = math.min(left, 256 * 2304)
    local rows = math.max(1, math.min(256, 2 ^ math.floor(math.log(math.sqrt(n)) / math.log(2))))
    local columns = math.max(1, math.floor(n / rows))
    local g = atomo.randn(rows, columns):mul_(0.1)
    g:add_(atomo.randn(rows, 1):matmul(atomo.randn(1, columns)))
    list[#list + 1] = g
    left = left - rows * columns
  end
  return list
end

local function median(times)
  table.sort(times)
  return times[math.ceil(#times / 2)]
end

--- One case: median seconds of the slowest rank, bytes out and in of the busiest rank.
local function measure(topology, compress, bytes)
  local down = topology == "ps" and opts.down or nil -- no other has a way down
  local made, ex = pcall(atomo.exchange, {topology = topology, compress = compress, down = down, min_size = 128})
  if not made then return nil, tostring(ex):gsub("^.-exchange: ", "") end
  local source, work, times, began = gradients(bytes), {}, {}, nil
  for i, g in ipairs(source) do work[i] = g:clone() end
  local busiest, late = atomo.zeros(3), atomo.zeros(1)
  local p = busiest:data()
  for k = 0, opts["repeat"] do
    for i, g in ipairs(source) do work[i]:copy_(g) end
    world:barrier()
    local from = C.atomo_time()
    began = began or from
    for i = #work, 1, -1 do ex:push(i, work[i]) end
    ex:finish()
    local s = ex:stats()
    p[0], p[1], p[2] = C.atomo_time() - from, s.bytes_out, s.bytes_in
    world:allreduce(busiest, "max")
    if k > 0 then times[k] = p[0] end
    late:fill_(C.atomo_time() - began)
    world:allreduce(late, "max")
    if k > 0 and late:item() > opts.seconds then break end
  end
  local result = {seconds = median(times), steps = #times, bytes_out = p[1], bytes_in = p[2]}
  for i = 1, #work do work[i]:free() source[i]:free() end
  return result
end

local rate = link_rate()
say("%d ranks on %s and others, %d a host; link: %s", world.size, world.hostname, world.local_size,
  rate and log.bytes(rate) .. "/s" or "none")
local file = log.open(world.rank == 0 and opts.json ~= "" and opts.json or nil)
local rows, refused = {{"topology", "compressor", "gradient", "step", "bytes out", "bytes in", "of the link"}}, {}

for size in opts.sizes:gmatch "[^,%s]+" do
  local bytes = parse_size(size)
  for compress in opts.compress:gmatch "%S+" do
    for topology in opts.topology:gmatch "[^,%s]+" do
      local r, why = measure(topology, compress, bytes)
      if r then
        local share = rate and math.max(r.bytes_out, r.bytes_in) / r.seconds / rate
        rows[#rows + 1] = {topology, compress, log.bytes(bytes), log.duration(r.seconds), log.bytes(r.bytes_out),
          log.bytes(r.bytes_in), share and ("%.0f %%"):format(100 * share) or "-"}
        file:write {event = "exchange", topology = topology, compress = compress, dense_bytes = bytes,
          ranks = world.size, seconds = r.seconds, steps = r.steps, bytes_out = r.bytes_out, bytes_in = r.bytes_in,
          link_bytes_per_s = rate}
      else
        refused[topology .. " with " .. compress] = why
      end
    end
  end
end
file:close()
say("%s", log.table(rows))
for case, why in pairs(refused) do say("left out: %s: %s", case, why) end
