--- A sharded optimizer (ZeRO-1 [Rajbhandari et al. 2020]): each of P ranks keeps 1/P of the optimizer's state, updates
-- the weights that belong to it, and sends them to the others (stage 9). All ranks have the same gradients, and an
-- update is elementwise. So weights and state are bit-identical to those of an optimizer that is not sharded, unless
-- changes of weights are sent rounded (rounded.lua).
--
-- Each group's blocks (group.lua) are cut into P ranges at multiples of 16 floats, whichever parameters lie there.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local check_options = require "atomo.tensor.check_options"
local gathered = require "atomo.optim.gathered"
local rounded = require "atomo.optim.rounded"
local same = require "atomo.comm.consistency"
local slice = require "atomo.optim.slice"
local updates = require "atomo.optim.update"
local C, check, ffi, raise = f.C, f.check, f.ffi, f.raise

local ALIGN = 16 -- ranges begin at multiples of as many floats, as each parameter's state does

---@class atomo.Shards
---@field comm atomo.Comm
---@field cuts table<atomo.Group, integer[]>  cuts[group][r]: first float of rank r's range; [P]: floats of a block
---@field weights "fp32"|"bf16"  how weights travel: as they are, or their change rounded to bf16
---@field bytes_out number  bytes of weights sent in the last step
---@field bytes_in number   bytes of weights received in the last step
local Shards = {}
Shards.__index = Shards

local M = {}

-- Their update of an element depends on norms of its whole tensor.
local whole_tensors = {lars = true, lamb = true}

--- Cuts `units` of 16 floats among the ranks. The ranks from `turn` on get one more where it does not come out even.
--- Returns the cuts in floats, and the turn of the next group.
local function cut(units, ranks, turn)
  local each, more, cuts, at = math.floor(units / ranks), units % ranks, {}, 0
  for r = 0, ranks - 1 do
    cuts[r] = at * ALIGN
    at = at + each + ((r - turn) % ranks < more and 1 or 0)
  end
  cuts[ranks] = at * ALIGN
  return cuts, (turn + more) % ranks
end

--- Raises unless an optimizer of this kind can be sharded over comm. Returns how weights travel, by default "fp32".
---@param kind string
---@param comm atomo.Comm
---@param opts {weights: "fp32"|"bf16"|nil}?
---@return "fp32"|"bf16"
function M.check(kind, comm, opts)
  if type(comm) ~= "table" or type(comm.size) ~= "number" or type(comm.rank) ~= "number" then
    raise(("%s: shard: expected a communicator, as atomo.mpi.world, got a %s"):format(kind, type(comm)))
  elseif whole_tensors[kind] then
    raise(("%s: it cannot be sharded: its update needs the norms of whole tensors; sgd, adam and adamw can be"):format(
      kind))
  end
  if opts ~= nil then check_options.check(kind .. ": shard", opts, {weights = true}) end
  local weights = opts and opts.weights or "fp32"
  if weights ~= "fp32" and weights ~= "bf16" then
    raise(("%s: shard: weights is %s, expected 'fp32' or 'bf16'"):format(kind, brief(weights)))
  end
  return weights
end

--- Shards an optimizer over comm: this rank keeps its range of each block. [local]
---@param optimizer atomo.Optimizer
---@param comm atomo.Comm
---@param weights "fp32"|"bf16"
---@return atomo.Shards
function M.new(optimizer, comm, weights)
  local self = setmetatable({comm = comm, optimizer = optimizer, cuts = {}, flats = {}, copies = {}, plan = false,
    weights = weights, codes = {}, bytes_out = 0, bytes_in = 0}, Shards)
  local turn = 0
  for _, group in ipairs(optimizer.groups) do
    self.cuts[group], turn = cut(group.n / ALIGN, comm.size, turn)
    group:keep(self.cuts[group][comm.rank], self.cuts[group][comm.rank + 1])
  end
  return self
end

-- ---- agreement ---------------------------------------------------------------------------------------------------

--- Runs fn() on every rank; it returns items as same.check wants them. Raises on every rank if fn raises on any, or if
--- the items differ. what: the operation. [collective]
function Shards:check_same(what, fn)
  local ok, items = pcall(fn)
  if not ok then items = {{"error", items}} end
  same.check(self.comm, ("%s: %s"):format(self.optimizer.kind, what), items)
  if not ok then error(items[1][2], 0) end
end

--- Returns which parameters of a group take part in the step: "all", or their numbers.
local function taking_part(group)
  local list = {}
  for i = 1, #group.params do
    if group.checked[i] then list[#list + 1] = i end
  end
  return #list == #group.params and "all" or table.concat(list, " ")
end

local function items_of(optimizer)
  local items = {{"step", optimizer.steps + 1}, {"weights", optimizer.shards.weights}}
  for k, group in ipairs(optimizer.groups) do
    local prefix = ("group %d: "):format(k)
    items[#items + 1] = {prefix .. "parameters that take part", taking_part(group)}
    items[#items + 1] = {prefix .. "lr", (group:rate_at(optimizer.lr))}
    for _, name in ipairs(group.names) do
      if name ~= "lr" then items[#items + 1] = {prefix .. name, group[name]} end
    end
  end
  return items
end

-- ---- the plan: which parts of which weights each rank sends ---------------------------------------------------------

--- Returns a contiguous view of parameter p, or of a copy of it if it is strided.
local function flat_of(self, p)
  local flat = self.flats[p]
  if not flat then
    if not p:is_contiguous() then self.copies[p] = p:detach():contiguous() end
    flat = slice(self.copies[p] or p, 0, p:numel())
    self.flats[p] = flat
  end
  return flat
end

--- Adds the parts of parameter i to the plan; own[i]: {this rank's part, elements of the parameter before it, number of
--- the part}.
local function add_parts(self, plan, group, i, flat)
  local cuts, own = self.cuts[group], plan.own[group]
  for r = 0, self.comm.size - 1 do
    local first, count = group:part(i, cuts[r], cuts[r + 1])
    if count > 0 then
      local part = slice(flat, first, count)
      plan.parts[#plan.parts + 1], plan.owners[#plan.owners + 1] = part, r
      if r == self.comm.rank then own[i], plan.floats = {part, first, #plan.parts}, plan.floats + count end
      plan.all = plan.all + count
    end
  end
end

local function make_plan(self)
  local plan = {parts = {}, owners = {}, own = {}, params = {}, floats = 0, all = 0}
  for _, group in ipairs(self.optimizer.groups) do
    plan.own[group], plan.params[group] = {}, {}
    for i, p in ipairs(group.params) do
      plan.params[group][i] = group.checked[i] and p
      if group.checked[i] then add_parts(self, plan, group, i, flat_of(self, p)) end
    end
  end
  plan.n = #plan.parts
  plan.handles, plan.ranks = ffi.new("atomo_tensor *[?]", plan.n), ffi.new("int[?]", plan.n)
  for k, part in ipairs(plan.parts) do plan.handles[k - 1], plan.ranks[k - 1] = part.h, plan.owners[k] end
  return plan
end

--- Is the plan for the parameters that take part in this step?
local function fits(self)
  for _, group in ipairs(self.optimizer.groups) do
    local planned = self.plan and self.plan.params[group] or {}
    for i, p in ipairs(group.params) do
      if planned[i] ~= (group.checked[i] and p) then return false end
    end
  end
  return true
end

local function update_plan(self)
  if not fits(self) then self.plan = make_plan(self) end
end

--- Allocates the state that the step needs, on all ranks alike, whichever parameters lie in a rank's range.
local function make_state(optimizer)
  for _, group in ipairs(optimizer.groups) do
    for name, wanted in pairs(updates.state[optimizer.kind]) do
      if wanted(group) and taking_part(group) ~= "" then group:state_of(name) end
    end
  end
end

-- ---- a step ------------------------------------------------------------------------------------------------------

--- Begins a step: runs check(), makes the plan, and raises on every rank if any of it fails on one, or if ranks would
--- take different steps. Nothing is changed then. [collective]
---@param check_step fun()
function Shards:begin(check_step)
  self:check_same("step", function()
    check_step()
    make_state(self.optimizer)
    T.outside_scope(update_plan, self)
    return items_of(self.optimizer)
  end)
end

--- Updates this rank's part of parameter i of a group.
---@param update function  of update.lua
function Shards:update(update, group, i, lr, t)
  local own = self.plan.own[group][i]
  if not own then return end
  local part, first, k = own[1], own[2], own[3]
  local dense = group:gradient(i)
  local g = slice(dense, first, part:numel())
  if self.weights == "fp32" then
    update(group, i, part, g, lr, t)
  else
    self.codes[k] = rounded.change(part, function() update(group, i, part, g, lr, t) end)
  end
  g:free()
end

--- Calls fn(copy, parameter) for the parameters that are strided and take part.
local function each_copy(self, fn)
  for p, copy in pairs(self.copies) do
    if p.requires_grad and p.grad then fn(copy, p:detach()) end
  end
end

--- Runs apply(), which updates this rank's parts, and sends them to the others. If it fails on one rank, the others get
--- an error, too. [collective]
---@param apply fun()
function Shards:finish(apply)
  local comm, plan, codes, exact = self.comm, self.plan, {}, self.weights == "fp32"
  self.codes = codes
  local ok, why = pcall(function()
    each_copy(self, function(copy, p) copy:copy_(p) end)
    apply()
    if not exact then rounded.prepare(plan, codes) end
  end)
  if not ok then -- the others are in the all-gather, and get an error that names this operation
    pcall(comm.check, comm, self.optimizer.kind .. ": update failed", tostring(why))
    error(why, 0)
  end
  if exact then
    check(C.atomo_comm_allgather_parts(comm.h, plan.handles, plan.ranks, plan.n))
  else
    rounded.exchange(comm, plan, codes)
  end
  each_copy(self, function(copy, p) p:copy_(copy) end)
  local each = exact and 4 or 2
  self.bytes_out, self.bytes_in = each * plan.floats * (comm.size - 1), each * (plan.all - plan.floats)
end

--- Calls fn(group, number of the group, name, whole block) for each block of the optimizer, one after the other; the
--- block is nil on ranks other than `root`, if that is given. [collective]
---@param fn fun(group: atomo.Group, k: integer, name: string, block: atomo.Tensor?)
---@param root integer?
function Shards:each_block(fn, root) gathered.each_block(self, fn, root) end

--- Makes the optimizer's blocks whole on every rank. [collective]
function Shards:dissolve() gathered.dissolve(self) end

return M
