--- atomo.profile: time of a training step by operator and shape, forward and backward.
--   local profile = atomo.profile.start();  ... steps ...;  print(profile:stop():text())
-- Work is counted in multiplications and additions of the direct algorithm (conv2d, linear), otherwise in bytes of all
-- operands and results. The share compares work per second with a limit measured here: one large product in the
-- operator's precision, or a copy, with the same threads. Winograd convolutions can exceed 100 %, since they need fewer
-- multiplications.
local T = require "atomo.tensor"
local autograd = require "atomo.autograd"
local f = require "atomo.ffi"
local C, raise = f.C, f.raise

local Profile = {}
Profile.__index = Profile

local function numel(t) return T.is_tensor(t) and t.h.numel or 0 end

--- Returns the multiplications and additions of forward, 0 for operators other than conv2d and linear. Each element of
--- the result takes one per element of a filter of the weight [out, ...].
local function flops(op, ctx, result)
  if op.name ~= "conv2d" and op.name ~= "linear" then return 0 end
  local w = ctx.inputs[2]
  return 2 * result * w.h.numel / w.h.shape[0]
end

local function in_bf16(op, ctx) return ctx.product_precision == C.ATOMO_PRECISION_BF16 and not op.runs_user_code end

--- Returns the key of a call, "conv2d [128,32,32,16] [32,3,3,16] s2 p1 bf16": operator, shapes, stride, padding,
--- precision.
local function key_of(op, ctx)
  local parts = {op.name}
  for i = 1, 2 do
    local t = ctx.inputs[i]
    if T.is_tensor(t) and t.h.ndim > 1 then parts[#parts + 1] = T.shape_text(t) end
  end
  if op.name == "conv2d" then
    local win = ctx.inputs[4]
    if win.stride[0] * win.stride[1] > 1 then parts[#parts + 1] = ("s%d"):format(win.stride[0]) end
    if win.padding[0] + win.padding[1] > 0 then parts[#parts + 1] = ("p%d"):format(win.padding[0]) end
    if win.groups > 1 then parts[#parts + 1] = ("g%d"):format(win.groups) end
  end
  if in_bf16(op, ctx) then parts[#parts + 1] = "bf16" end
  return table.concat(parts, " ")
end

--- Returns the description of a convolution with which tools/conv_limit.lua runs it again.
local function conv_of(ctx, y)
  return {x = ctx.inputs[1]:shape(), w = ctx.inputs[2]:shape(), y = y:shape(), window = ctx.inputs[4],
    needs_data = ctx:needs(1)}
end

local function bytes_of(ctx, ...)
  local n = 0
  for i = 1, 4 do n = n + numel(ctx.inputs[i]) end
  for i = 1, select("#", ...) do n = n + numel((select(i, ...))) end
  return 4 * n
end

function Profile:see(pass, op, ctx, seconds, ...)
  local key = ctx.profile_key or key_of(op, ctx)
  ctx.profile_key = key
  local row = self.rows[key]
  if not row then
    row = {name = key, conv = op.name == "conv2d" and conv_of(ctx, (...)) or nil, bf16 = in_bf16(op, ctx)}
    for _, p in ipairs {"forward", "backward"} do row[p] = {calls = 0, seconds = 0, flops = 0, bytes = 0} end
    self.rows[key] = row
    self.order[#self.order + 1] = row
  end
  local sum = row[pass]
  sum.calls, sum.seconds = sum.calls + 1, sum.seconds + seconds
  sum.bytes = sum.bytes + bytes_of(ctx, ...)
  if pass == "forward" then
    ctx.profile_flops = flops(op, ctx, numel((...)))
    sum.flops = sum.flops + ctx.profile_flops
  else
    local x = ...
    sum.flops = sum.flops + (ctx.profile_flops or 0) * (x and 2 or 1)
  end
end

local running -- the profile that is recording, or nil

--- Starts a profile. Only one records at a time: one that is still running (after an error) is stopped.
---@return table
---@usage atomo.profile.start():stop()
local function start()
  if running then running:stop() end
  local self = setmetatable({rows = {}, order = {}, begin = C.atomo_time()}, Profile)
  running = self
  autograd.observe(function(...) self:see(...) end)
  return self
end

--- Stops the profile, if it is running; returns it.
function Profile:stop()
  if running ~= self then return self end
  running = nil
  autograd.observe(nil)
  self.seconds = C.atomo_time() - self.begin
  return self
end

local function best_of(n, fn)
  local best = math.huge
  for _ = 1, n do
    local t = C.atomo_time()
    fn()
    best = math.min(best, C.atomo_time() - t)
  end
  return best
end

--- Measures the limits: FLOP/s of a product with 1024 x 256 x 256 per thread in fp32 and, with bf16, in bf16; bytes/s
--- (read and written) of a 64 MB copy.
local function limits(bf16)
  return T.scope(function()
    local rows = 1024 * C.atomo_num_threads()
    local x, w = T.rand(rows, 256), T.rand(256, 256)
    local a, b, o = T.rand(2 ^ 24), T.zeros(2 ^ 24), T.empty {rows, 256}
    local out = T.out()
    out[0] = o.h
    local function product_rate(precision)
      return 2 * rows * 256 * 256 / best_of(20, function() C.atomo_linear(x.h, w.h, nil, precision, out) end)
    end
    return {fp32 = product_rate(C.ATOMO_PRECISION_FP32), bf16 = bf16 and product_rate(C.ATOMO_PRECISION_BF16),
      bytes = 8 * 2 ^ 24 / best_of(5, function() b:copy_(a) end)}
  end)
end

local function cell(sum, steps, flop_limit, byte_limit)
  if sum.calls == 0 then return ("%31s"):format "" end
  local rate, limit, unit = sum.bytes / sum.seconds, byte_limit, "GB/s"
  if sum.flops > 0 then rate, limit, unit = sum.flops / sum.seconds, flop_limit, "GFLOP/s" end
  return ("%8.2f ms %6.0f %-7s %3.0f%%"):format(1e3 * sum.seconds / steps, rate / 1e9, unit, 100 * rate / limit)
end

--- Returns a table of operators, the slowest first.
---@param steps integer?  number of training steps profiled (default 1); times are per step
function Profile:text(steps)
  steps = steps or 1
  local rows, sum, bf16 = {}, 0, false
  for _, row in ipairs(self.order) do
    bf16 = bf16 or row.bf16
    row.total = row.forward.seconds + row.backward.seconds
    sum = sum + row.total
    rows[#rows + 1] = row
  end
  table.sort(rows, function(a, b) return a.total > b.total end)
  local limit = limits(bf16)
  local lines = {("limits: sgemm %.0f GFLOP/s, %scopy %.1f GB/s"):format(limit.fp32 / 1e9,
    bf16 and ("bf16 product %.0f GFLOP/s, "):format(limit.bf16 / 1e9) or "", limit.bytes / 1e9),
    ("%-44s %5s %6s  %31s  %31s"):format("operator", "calls", "share", "forward, share of the limit",
      "backward, share of the limit")}
  for _, row in ipairs(rows) do
    local flop_limit = row.bf16 and limit.bf16 or limit.fp32
    lines[#lines + 1] = ("%-44s %5.0f %5.1f%%  %s  %s"):format(row.name, row.forward.calls / steps,
      100 * row.total / self.seconds, cell(row.forward, steps, flop_limit, limit.bytes),
      cell(row.backward, steps, flop_limit, limit.bytes))
  end
  lines[#lines + 1] = ("%-44s %5s %5.1f%%  %8.2f ms a step of %.2f ms"):format("outside operators", "",
    100 * (1 - sum / self.seconds), 1e3 * (self.seconds - sum) / steps, 1e3 * self.seconds / steps)
  return table.concat(lines, "\n")
end

--- Returns an on_step hook for atomo.train that profiles up to 10 steps after the first two, then passes the table to
--- say.
---@param total integer              number of steps of the run; raises if below 3
---@param say fun(text: string)
---@return function
---@usage type(atomo.profile.hook(20, print)) --> function
local function hook(total, say)
  local steps, seen, profile = math.min(10, total - 2), 0, nil
  if steps < 1 then raise(("profile: the run has %d steps, it needs 3: the first two are left out"):format(total)) end
  return function()
    seen = seen + 1
    if seen == 2 then
      profile = start()
    elseif seen == 2 + steps then
      say(("profile of %d steps:\n%s"):format(steps, profile:stop():text(steps)))
    end
  end
end

return {start = start, hook = hook}
