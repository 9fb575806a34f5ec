--- One training step: the path of a gradient from batch to parameters (stages 3 to 9).
-- This file reads like the table in README's tour: forward and loss, backward with each gradient handed on as it
-- becomes ready, exchange, update.
local T = require "atomo.tensor"
local F = require "atomo.functional"
local clip = require "atomo.optim.clip"
local C = require("atomo.ffi").C

---@class atomo.Step
local Step = {}
Step.__index = Step

--- opts: model, loss (logits, labels) -> scalar, optimizer, exchange, comm, accuracy (logits, labels) -> fraction.
local function new(opts)
  local self = setmetatable({}, Step)
  for key, value in pairs(opts) do self[key] = value end
  self.index = {}
  for i, p in ipairs(self.optimizer.params) do self.index[p] = i end
  self.shared = T.outside_scope(T.zeros, 4) -- loss * images, right answers, images, ranks with a non-finite number
  self.on_ready = function(p)
    local i = self.index[p]
    if i then
      self.exchange:push(i, p.grad)
      self.handed[i] = true
    end
  end
  return self
end

--- Stage 3. Returns loss and accuracy of this rank's images.
local function forward_backward(self, batch, ms)
  if batch.n == 0 then return 0, 0 end -- the epoch's last batch may leave a rank without images: its gradient is zero
  return T.scope(function()
    local t0 = C.atomo_time()
    local logits = self.model(batch.x)
    local loss = self.loss(logits, batch.y)
    local value = loss:item()
    local accuracy = self.accuracy and self.accuracy(logits, batch.y) or 0
    local t1 = C.atomo_time()
    -- The exchange averages over ranks, the loss over this rank's images: weigh it by its share of the global batch.
    local share = batch.n * self.comm.size / batch.total
    if share ~= 1 then loss = loss * share end
    loss:backward(nil, {on_ready = self.on_ready})
    ms.forward, ms.backward = 1e3 * (t1 - t0), 1e3 * (C.atomo_time() - t1)
    return value, accuracy
  end)
end

--- What all ranks must know before they go on, in one small all-reduce.
local function agree(self, batch, loss, accuracy)
  local s = self.shared
  local p = s:data()
  local bad = loss ~= loss or math.abs(loss) == math.huge
  for _, group in ipairs(self.optimizer.groups) do
    if not bad then bad = group.flat.grad:count_nonfinite() > 0 end
  end
  p[0], p[1], p[2], p[3] = bad and 0 or loss * batch.n, accuracy * batch.n, batch.n, bad and 1 or 0
  self.comm:allreduce(s, "sum")
  return p[0] / p[2], p[1] / p[2], p[3], bad
end

--- Trains on one batch {x, y, n, total} as step number `step`. Returns {loss, accuracy (of all ranks), bad (ranks with
--- NaN or Inf), ms, stats}.
function Step:run(batch, lr, step)
  local ms = {forward = 0, backward = 0}
  F.dropout_stream(self.comm.rank, step)
  self.handed = {}
  self.optimizer:zero_grad()
  local loss, accuracy = forward_backward(self, batch, ms)                    -- 3
  for i, p in ipairs(self.optimizer.params) do                                -- parameters that backward did not reach
    if not self.handed[i] then self.exchange:push(i, p.grad) end
  end
  ms.backward = math.max(0, ms.backward - self.exchange.ms.encode)            -- encoding went on in between
  local result = {ms = ms, own_loss = loss}
  local waiting = C.atomo_time()
  result.loss, result.accuracy, result.bad, result.bad_here = agree(self, batch, loss, accuracy)
  waiting = 1e3 * (C.atomo_time() - waiting)                                  -- for the slowest rank
  if result.bad > 0 then
    self.exchange:drop()
    return result
  end
  self.exchange:finish()                                                      -- 4 to 8
  local t0 = C.atomo_time()
  self.optimizer.lr = lr
  if self.clip_value then clip.clip_grad_value(self.optimizer.params, self.clip_value) end
  if self.clip_norm then clip.clip_grad_norm(self.optimizer.params, self.clip_norm) end
  self.optimizer:step()                                                       -- 9
  ms.update = 1e3 * (C.atomo_time() - t0)
  local stats = self.exchange:stats()
  for name, value in pairs(stats.ms) do ms[name] = value end
  ms.exchange = ms.exchange + waiting
  result.stats = stats
  return result
end

return new
