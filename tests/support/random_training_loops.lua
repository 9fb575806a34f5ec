--- The loops that run a random training script (random_training_run.lua): atomo.train, and a user's loop of backward,
-- exchange and optimizer.
local atomo = require "atomo"
local world = atomo.mpi.world

local M = {}

-- ---- atomo.train -------------------------------------------------------------------------------------------------

--- Returns the micro-batches of each epoch in order: {{batch, batch, ...}, ...}. They are made before the model, which
--- is seeded last.
local function all_batches(run, epochs)
  local all = {}
  for e, steps in ipairs(epochs) do
    local list = {}
    for _, step in ipairs(steps) do
      local before = step
      local function add(micro, lost)
        for k, m in ipairs(micro) do
          local batch = run:batch(m)
          batch.begins, batch.given_up, batch.lost = k == 1, lost and k == 1, lost and lost.at == k and lost or nil
          batch.step, before, batch.scale = before, nil, step.scale
          list[#list + 1] = batch
        end
      end
      for _, lost in ipairs(run.how.lost == false and {} or step.lost) do add(lost.micro, lost) end
      add(step.micro)
    end
    all[e] = list
  end
  return all
end

--- Makes a loader of these batches. Between two steps it runs the script's events, and checks the state after a step
--- that was given up.
local function make_loader(run, all)
  local s, loader = run.script, {batch = 4, size = world.size}
  local before, in_round -- the state before a step that is given up; number of local steps in this round
  local function look(lost)
    local ended = s.local_steps and in_round % s.local_steps == 0
    local whole = not s.local_steps or lost.rank == world.rank and not ended
    local what = whole and run.difference(before, run:state())
    if what then run:fault("trace: a step given up (%s) changed %s", lost.way, what) end
    before = nil
  end
  function loader:epoch(e)
    local lost
    in_round = 0
    self.batches = all[e]
    return function(_, last)
      local k = last and last.number + 1 or 1
      local batch = self.batches[k]
      if before and (not batch or batch.begins) then look(lost) end
      if not batch then return nil end
      if batch.begins then in_round = in_round + 1 end
      if batch.step then run:before_step(batch.step) end
      if batch.given_up then before = run:state() end
      if batch.lost then lost = batch.lost end
      batch.number, run.lost, run.scale = k, batch.lost, batch.scale
      return batch
    end
  end
  function loader:begin(e) self.steps = all[e] and #all[e] end
  return loader, function() return s.local_steps and in_round % s.local_steps == 0 end
end

local function train(run, epochs, more)
  local s = run.script
  local loader, round_ended = make_loader(run, more.batches)
  loader:begin(more.first)
  local options = {model = run.model, optimizer = run.optimizer, exchange = run.exchange, data = loader, quiet = true,
    eval_every = 0, nonfinite = "skip", accumulate = s.accumulate, clip_norm = s.clip_norm, clip_value = s.clip_value,
    local_steps = s.local_steps, outer = s.outer, epochs = #epochs, save = more.save, resume = more.resume,
    schedule = s.schedule and function(step) return 0.02 / (1 + step) end or nil,
    loss = function(logits, labels) return run:loss(logits, labels, run.lost, run.scale) end,
    on_step = function(info)
      local weights = run.optimizer.shards and run.optimizer.shards.bytes_out or 0
      if not s.local_steps or round_ended() then run:note_bytes(info.bytes_out - weights) end
      run:note_step(not s.local_steps)
    end,
    on_epoch = function(info)
      loader:begin(info.epoch + 1)
      run:note_step(true)
    end}
  atomo.train(options)
end

--- Runs the script by atomo.train, after an earlier run of the same objects if it has one.
function M.train(run)
  local s, how = run.script, run.how
  local before, batches = s.before and all_batches(run, s.before), all_batches(run, s.epochs)
  run:build()
  if before and not how.resume then
    run:make_optimizer(s.before.optimizer)
    train(run, s.before, {batches = before, first = 1})
  end
  if how.resume then -- events before the resumed step are repeated
    for _, epochs in ipairs {s.before or {}, {unpack(s.epochs, 1, s.stop)}} do
      for _, steps in ipairs(epochs) do
        for _, step in ipairs(steps) do run:before_step(step, true) end
      end
    end
  end
  run:make_optimizer(s.optimizer)
  local last = how.stop and s.stop or #s.epochs
  train(run, {unpack(s.epochs, 1, last)}, {batches = batches, first = how.resume and s.stop + 1 or 1, save = how.save,
    resume = how.resume})
end

-- ---- a loop as users write it ------------------------------------------------------------------------------------

--- Returns the parameters that are not frozen, in the optimizer's order; replans the exchange if they have changed.
local function trained(run)
  local list, names, name_of = run.optimizer:trained(), {}, {}
  for _, entry in ipairs(run.model:named_parameters()) do name_of[entry[2]] = entry[1] end
  for i, p in ipairs(list) do names[i] = name_of[p] end
  local text = table.concat(names, " ")
  if text ~= run.trained then
    if run.trained then run.exchange:replan() end
    run.exchange:set_names(names)
    run.trained = text
  end
  local index = {}
  for i, p in ipairs(list) do index[p] = i end
  return list, index
end

--- Computes the gradients of a step's micro-batches, from number `least` on; pushes each when it is ready, or all at
--- the end. lost: how the step is given up, or nil.
local function gradients(run, batches, list, index, least, lost)
  local s, pushed = run.script, {}
  local function push(p)
    local i = index[p]
    if i and i >= least then
      if not p.grad then p.grad = atomo.zeros(p:shape()):keep() end
      run.exchange:push(i, p.grad)
      pushed[i] = true
    end
  end
  run.optimizer:zero_grad()
  for k, batch in ipairs(batches) do
    local options = k == #batches and not s.at_end and {on_ready = push} or nil
    if batch.n > 0 then
      atomo.scope(function()
        local nan = lost and lost.way == "nan" and k == lost.at and lost or nil
        local loss, count = run:loss(run.model(batch.x), batch.y, nan, batch.scale)
        if count > 0 then (loss * (1 / #batches)):backward(nil, options) end
      end)
    end
  end
  for i = #list, 1, -1 do if not pushed[i] then push(list[i]) end end
end

--- Runs a step that is given up. [collective]
local function lose(run, lost, batches)
  local list, index = trained(run)
  local buffers = {}
  for i, b in ipairs(run.model:buffers()) do buffers[i] = b:clone() end
  local before = run:state()
  gradients(run, batches, list, index, lost.way == "in part" and 1 + (world.rank + lost.rank) % (#list + 1) or 1,
    lost)
  if lost.way == "averaged" then run.exchange:average() end
  if lost.way == "nan" then pcall(run.exchange.average, run.exchange) end -- may raise
  run.exchange:drop()
  for i, b in ipairs(run.model:buffers()) do b:copy_(buffers[i]) end
  local what = run.difference(before, run:state())
  if what then run:fault("trace: a step given up (%s) changed %s", lost.way, what) end
end

local function mean_is_exact(run, list, sums)
  for i, p in ipairs(list) do
    world:allreduce(sums[i], "sum")
    local want = sums[i]:mul_(1 / world.size)
    local off, size = (want - p.grad):norm_value(math.huge), want:norm_value(math.huge)
    if off > 1e-5 * size + 1e-12 then run:fault("mean: gradient %d is off by %g of %g", i, off, size) end
  end
end

local function take(run, batches)
  local s = run.script
  local list, index = trained(run)
  local dense = run.exchange.compressor.name == "none" and {}
  gradients(run, batches, list, index, dense and #list + 1 or 1)
  if dense then -- copies of the gradients before the exchange
    for i, p in ipairs(list) do dense[i] = (p.grad or atomo.zeros(p:shape())):clone() end
    for i = #list, 1, -1 do
      list[i].grad = list[i].grad or atomo.zeros(list[i]:shape()):keep()
      run.exchange:push(i, list[i].grad)
    end
  end
  run.exchange:finish()
  if dense then mean_is_exact(run, list, dense) end
  run:note_bytes(run.exchange:stats().bytes_out)
  if s.clip_value then atomo.optim.clip_grad_value(list, s.clip_value) end
  if s.clip_norm then atomo.optim.clip_grad_norm(list, s.clip_norm) end
  run.optimizer:step()
  run:note_step(true)
end

local function copies(state)
  local copy = {}
  for name, v in pairs(state) do copy[name] = type(v) == "number" and v or v:clone():keep() end
  return copy
end

--- Returns what a user saves after a step to resume.
local function save(run)
  run.saved = {model = copies(run.model:state_dict()), optimizer = copies(run.optimizer:state_dict()),
    exchange = copies(run.exchange:state_dict()), step = run.exchange.step}
end

local function load(run, saved)
  run.model:load_state_dict(saved.model)
  run.optimizer:load_state_dict(saved.optimizer)
  run.exchange:load_state_dict(saved.exchange)
  run.exchange:set_step(saved.step)
end

function M.loop(run)
  local s, how, steps = run.script, run.how, {}
  for _, epoch in ipairs(s.epochs) do
    for _, step in ipairs(epoch) do
      local all = {step = step, lost = {}}
      for i, micro in ipairs(step.micro) do
        all[i] = run:batch(micro)
        all[i].scale = step.scale
      end
      for i, lost in ipairs(how.lost == false and {} or step.lost) do
        all.lost[i] = {}
        for k, micro in ipairs(lost.micro) do all.lost[i][k] = run:batch(micro) end
      end
      steps[#steps + 1] = all
    end
  end
  run:build()
  run:make_optimizer(s.optimizer)
  local stop = 1 + s.seed % (#steps - 1) -- the state is saved after this step
  for k, batches in ipairs(steps) do
    local replayed = how.resume and k <= stop
    run:before_step(batches.step, replayed)
    if not replayed then
      for i, lost in ipairs(batches.lost) do lose(run, batches.step.lost[i], lost) end
      atomo.F.dropout_stream(world.rank, k)
      take(run, batches)
      if k == stop then save(run) end
    elseif k == stop then
      load(run, how.resume)
    end
  end
end

return M
