--- A job that abandons unfinished work: steps of an exchange, messages, batches. For leave_spec.lua.
--   atomo-lua tests/support/leave_job.lua HOW [COMPRESS TOPOLOGY DOWN]
local atomo = require "atomo"
local world = atomo.mpi.world
local how = arg[1]

--- Reuses freed memory, so that a stale pointer to it would change results.
local function reuse()
  collectgarbage()
  collectgarbage()
  for _ = 1, 40 do atomo.full({120, 200}, 7):free() end
end

--- Returns an exchange in its second step, with three of four gradients pushed.
local function begun(o)
  local ex = atomo.exchange {compress = o[1], topology = o[2], downlink = o[3], min_size = 0, seed = 1}
  local grads = {}
  for i = 4, 1, -1 do
    grads[i] = atomo.full({120, 200}, i + world.rank)
    ex:push(i, grads[i])
  end
  ex:finish()
  for i = 4, 2, -1 do ex:push(i, grads[i]) end
  return ex, grads
end

--- Ways in which a script may abandon the step.
local leave = {
  drop = function() end,
  free = function(_, grads) for i = 2, 4 do grads[i]:free() end end,
  coroutine = function(ex)
    local ok, text = coroutine.resume(coroutine.create(function() ex:push(1, 3) end))
    assert(not ok and text:find "gradient 1 is a number", text)
  end,
  again = function(ex, grads)
    ex:drop()
    for i = 4, 1, -1 do ex:push(i, grads[i]) end
    ex:finish()
  end,
  raise = function(ex)
    assert(not pcall(function()
      ex:push(2, atomo.ones(120, 200))
      error "never here"
    end))
  end,
  plan = function(ex)
    if not ex.compressor.h then return end
    local ok, text = pcall(ex.compressor.plan, ex.compressor, 1, {5, 5}) -- must not free memory that a job uses
    assert(ok or text:find "while an exchange codes with it" or text:find "would lose its residual", text)
  end,
}

local configurations = {{"none", "allreduce"}, {"svd:ratio=4", "allgather"}, {"entry:ratio=8,ef=true", "sharded"},
  {"fourier:ratio=8", "ps", "compress"}, {"entry:ratio=8", "ps"}, {"powersgd:rank=2", "allreduce"},
  {"fp16", "allreduce"}, {"none", "hierarchical"}}

--- Drops the tensors, handles and communicator of unfinished requests.
local function requests()
  local other, size = (world.rank + 1) % world.size, 50000
  local part = world:split(0)
  for _, comm in ipairs {part, world} do
    for k = 1, 3 do
      comm:isend(atomo.full({size}, k), other, k)
      comm:irecv(atomo.zeros(size), other, k)
      comm:iallreduce(atomo.ones(size))
      local t = atomo.ones(size)
      comm:ibcast(t, 0)
      t:free()
      comm:irecv(atomo.zeros(10), other, 31) -- never sent
    end
  end
  part:close()
  assert(not pcall(part.close, part))
  assert(not pcall(function() part:barrier() end))
  reuse()
end

--- Drops a loader's data set, and then the loader, while it makes the next batch.
local function loader()
  for round = 1, 3 do
    local data = atomo.data.synthetic {train = 400, test = 4}
    local batches = atomo.data.loader {set = data.train, batch = 50, augment = round > 1 and {crop = 4, flip = true}}
    local x
    for batch in batches:epoch(0) do
      x = batch.x -- of the last batch, which stays valid
      if round > 1 then break end
    end
    if round < 3 then
      data.train.images:free()
      data.train.labels:free()
    end
    data, batches = nil, nil -- luacheck: ignore
    reuse()
    assert(x == nil or x:sum():item() == x:sum():item())
  end
end

--- Uses objects in finalizers that run when Lua is closed, after those of the objects themselves.
local function finalizers()
  local ex, grads = begun {arg[2], arg[3], arg[4]}
  local data = atomo.data.synthetic {train = 40, test = 4}
  local batches = atomo.data.loader {set = data.train, batch = 10, augment = {crop = 4, flip = true}}
  local codec, sum = atomo.compressor "entry:ratio=4", world:iallreduce(atomo.ones(500))
  local before = {}
  for i, g in ipairs(grads) do before[i] = g:clone() end
  local last = newproxy(true)
  getmetatable(last).__gc = function()
    ex:push(1, grads[1])
    ex:finish()
    for i, g in ipairs(grads) do assert(g:sum():item() == g:sum():item() and before[i]:get(1, 1) > 0) end
    assert(codec:decode(codec:encode(grads[1])):numel() == 24000)
    assert(sum:wait():get(1) == world.size)
    local count = 0
    for batch in batches:epoch(1) do count = count + batch.n end
    assert(count == 40)
    world:barrier()
    if world.rank == 0 then print "used at the end" end
  end
  return last
end

if how == "requests" then
  requests()
elseif how == "loader" then
  loader()
elseif how == "finalizer" then
  leave.kept = finalizers()
elseif how == "all" then
  for _, o in ipairs(configurations) do
    if world.size == 1 and o[2] == "ps" then o = {o[1], "allgather"} end
    for _, name in ipairs {"drop", "free", "coroutine", "again", "raise", "plan"} do -- in this order on all ranks
      local ex, grads = begun(o)
      leave[name](ex, grads)
      ex, grads = nil, nil -- luacheck: ignore
      reuse()
    end
  end
  print "all left"
else
  local ex, grads = begun {arg[2], arg[3], arg[4]}
  if how == "exit" then os.exit(0) end
  if how == "raise" then error "left by an error" end
  if how == "close" then -- its communicator, twice
    local part = world:split(0)
    local inner = atomo.exchange {comm = part, compress = arg[2], topology = arg[3], downlink = arg[4], min_size = 0}
    for i = 4, 1, -1 do inner:push(i, grads[i]:clone()) end
    inner:finish()
    inner:push(4, grads[4]:clone())
    part:close()
    assert(not pcall(part.close, part))
    local ok, text = pcall(function()
      for i = 3, 1, -1 do inner:push(i, grads[i]:clone()) end
      inner:finish()
    end)
    assert(not ok and text:find "the communicator is closed", text)
  end
  leave.kept = {ex, grads} -- until the state is closed
end
