--- Checks of an exchange: gradients fit its plan, the step has not failed, all ranks run the same program and settings.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local pushed = require "atomo.exchange.pushed"
local replicas = require "atomo.comm.replicas"
local same = require "atomo.comm.consistency"
local C, check, raise = f.C, f.check, f.raise

local M = {}

--- Raises if the exchange is closed or its step has failed.
function M.sound(ex)
  if ex.closed then raise(("exchange: closed, since step %d failed: %s"):format(ex.step, ex.closed)) end
  if ex.current and ex.current.failed then
    raise(("exchange: step %d has failed, and must be given up by drop(): %s"):format(ex.step, ex.current.failed))
  end
end

--- Raises if a step has begun: threads may be working on it. what: the method that was called.
function M.between_steps(ex, what)
  if not ex.current then return end
  raise(("exchange: %s: step %d has begun: finish() or drop() ends it"):format(what, ex.step))
end

--- Raises unless grad is a contiguous f32 tensor with the shape that gradient i had in the first step, and was not
--- pushed in this step before.
function M.gradient(ex, i, grad)
  M.sound(ex)
  if not number.whole(i, 1) then
    raise(("exchange: gradient number %s, expected 1, 2, ..."):format(brief(i)))
  end
  T.expect(grad, ("exchange: gradient %d"):format(i), "f32")
  if ex.current and ex.current.given[i] then
    raise(("exchange: gradient %d was pushed twice in step %d"):format(i, ex.step))
  end
  if not grad:is_contiguous() then raise(("exchange: gradient %d is not contiguous"):format(i)) end
  if not ex.plan then return end
  local shapes = ex.plan.shapes
  if not shapes[i] then
    raise(("exchange: gradient %d, the first step had %d"):format(i, #shapes))
  elseif T.shape_text(grad) ~= shapes[i] then
    raise(("exchange: gradient %d is %s, in the first step it was %s"):format(i, T.shape_text(grad), shapes[i]))
  end
end

--- Raises if the step has been averaged, lacks gradients, or a gradient was changed after push.
function M.pushed(ex)
  local step, plan = ex.current, ex.plan
  if step.averaged then
    raise(("exchange: step %d has been averaged: commit() or drop() ends it"):format(ex.step))
  end
  if plan and step.count ~= #plan.shapes then
    raise(("exchange: %d of %d gradients were pushed in step %d (exchange:replan() begins with another set)"):format(
      step.count, #plan.shapes, ex.step))
  end
  for i = 1, step.count do
    if not step.given[i] then
      raise(("exchange: %d gradients were pushed, but number %d is missing"):format(step.count, i))
    end
  end
  pushed.check(ex.apart, step.versions, step.given, ex.names)
end

--- Raises on every rank unless number and shapes of gradients of the first step are equal on all ranks. [collective]
function M.agreement(ex)
  local given = ex.current.given
  local items = {{"number of gradients", #given}}
  for i, g in ipairs(given) do items[i + 1] = {"gradient " .. i, T.shape_text(g)} end
  same.check(ex.comm, "exchange", items)
end

--- Raises on every rank unless the parameters have the same values on all ranks. Only a gradient that backward or an
--- optimizer has put into .grad, and that is still there, tells its parameter. [collective]
function M.parameters(ex)
  local given = ex.current.given
  if ex.comm.size == 1 or not ex.settings.checked or ex.settings.nested or #given == 0 then return end
  local known = T.zeros(#given)
  for i, g in ipairs(given) do
    if g.leaf and g.leaf.grad == g then known:set(i, 1) end
  end
  ex.comm:allreduce(known, "min")
  local list = {}
  for i, g in ipairs(given) do
    if known:get(i) == 1 then list[ex.names and ex.names[i] or ("the parameter of gradient %d"):format(i)] = g.leaf end
  end
  replicas.check(ex.comm, ("exchange: before step %d"):format(ex.step), list)
end

--- Raises on every rank unless all run the same program and settings; then starts the watchdog. Not called for the
--- leaders' exchange inside a hierarchical one (nested). [collective]
function M.ranks(ex)
  local items, settings = same.program(), ex.settings
  items[#items + 1] = {"compressor", tostring(ex.compressor)}
  items[#items + 1] = {"topology", ex.topology}
  for _, name in ipairs {"seed", "min_size", "overlap", "downlink", "inter_node", "fuse_small", "message_buckets",
    "stall_warn", "stall_abort", "checked"} do
    local value = settings[name]
    items[#items + 1] = {name, value == nil and "default" or value}
  end
  same.check(ex.comm, "exchange", items)
  C.atomo_comm_set_checked(ex.comm.h, settings.checked and 1 or 0)
  check(C.atomo_watchdog_start(ex.comm.h, settings.stall_warn, settings.stall_abort, settings.flight_prefix))
end

return M
