--- Keeps replicas equal: parameters (in the optimizer or not, frozen or not), buffers, the optimizer's state, the modes
-- and options of modules. Rank 0's parameters and buffers are broadcast at the start. Then, after every load and by
-- check_replicas, checksums are compared; an error names what differs, on which rank, and what to do (stages 3 to 9).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local same = require "atomo.comm.consistency"
local structure = require "atomo.comm.structure"
local raise = f.raise

local M = {}

local REMEDY = "; make, load and change it alike on every rank, or send it: world:bcast(t, 0)"

local function text_of(v)
  if not T.is_tensor(v) then return same.text(v) end
  return ("crc %08x of %s %s"):format(T.crc(v), v:dtype(), T.shape_text(v))
end

local function by_name(a, b) return a[1] < b[1] end

--- Appends {prefix .. name, value} for the entries of a state_dict or any table of tensors and numbers: first numbers,
--- then tensors, each sorted by name.
local function add(list, prefix, state)
  local numbers, tensors = {}, {}
  for name, v in pairs(state) do
    local entries = T.is_tensor(v) and tensors or type(v) == "number" and numbers or {}
    entries[#entries + 1] = {prefix .. brief(name), v}
  end
  for _, entries in ipairs {numbers, tensors} do
    table.sort(entries, by_name)
    for _, entry in ipairs(entries) do list[#list + 1] = entry end
  end
end

--- Raises on every rank, naming the first difference, unless list, {{name, tensor, number or text}, ...}, is equal on
--- all.
--- [collective]
local function compare(comm, what, list)
  local items = {}
  for i, entry in ipairs(list) do items[i] = {entry[1], text_of(entry[2])} end
  same.check(comm, what, items, "a value", REMEDY)
end

--- Raises on every rank, naming the first difference, unless v is equal on all ranks. [collective]
---@param comm table
---@param what string  first words of the error
---@param v any  a tensor, a table of tensors and numbers by name, or an object with state_dict() (a model, an EMA);
--- of a model, modes and options of its modules are compared, too
function M.check(comm, what, v)
  local list = {}
  structure.add(list, "model", v)
  if T.is_tensor(v) then list[1] = {"tensor", v}
  elseif type(v) == "table" then add(list, "", type(v.state_dict) == "function" and v:state_dict() or v)
  else
    raise(("check_replicas: got a %s, expected a tensor, a table of them, or an object with state_dict()"):format(
      type(v)))
  end
  compare(comm, what, list)
end

--- Returns {name, tensor} of the model's parameters, then of those that only the optimizer has.
local function parameters(run)
  local list, seen = {}, {}
  for _, entry in ipairs(run.model.named_parameters and run.model:named_parameters() or {}) do
    list[#list + 1], seen[entry[2]] = entry, true
  end
  for i, p in ipairs(run.optimizer.params) do
    if not seen[p] then list[#list + 1] = {("parameter %d of the optimizer"):format(i), p} end
  end
  return list
end

local function buffers(run)
  return run.model.named_buffers and run.model:named_buffers() or {}
end

--- Appends the optimizer's state. With local SGD it is that of the outer optimizer: inner ones differ between ranks. Of
--- a sharded optimizer it is what all ranks have.
local function add_optimizer(list, run)
  if run.local_sgd then add(list, "outer ", run.local_sgd.optimizer:state_dict())
  elseif run.optimizer.shards then add(list, "optimizer ", run.optimizer:common_state())
  else add(list, "optimizer ", run.optimizer:state_dict()) end
end

local function send(comm, t)
  if t:is_contiguous() then return comm:bcast(t, 0) end
  local dense = t:detach():contiguous()
  comm:bcast(dense, 0)
  t:detach():copy_(dense)
end

--- Broadcasts rank 0's parameters and buffers, so that replicas start equal whatever seeds the scripts used. Raises if
--- the optimizer's state or the exchange's step number differs. [collective]
---@param run {model: table, optimizer: atomo.Optimizer, local_sgd: atomo.LocalSgd?, exchange: atomo.Exchange,
--- comm: table}
function M.start(run)
  for _, entry in ipairs(parameters(run)) do send(run.comm, entry[2]) end
  for _, entry in ipairs(buffers(run)) do send(run.comm, entry[2]) end
  local list = {{"steps of the exchange", run.exchange.step}}
  add_optimizer(list, run)
  compare(run.comm, "train: at the start", list)
end

--- Appends the modes and options of modules, and whether a parameter is frozen.
local function add_modes(list, run)
  structure.add(list, "model", run.model)
  structure.add(list, "loss", run.loss)
  for i = 1, #list do
    local name, p = list[i][1], list[i][2]
    if T.is_tensor(p) then list[#list + 1] = {name .. " frozen", not p.requires_grad} end
  end
end

--- Raises unless parameters, optimizer state, and modes and options of modules are equal on all ranks. With `all`,
--- buffers too: only after a load, since in training batch norm updates them by each rank's own images. [collective]
function M.compare(run, what, all)
  local list = parameters(run)
  add_modes(list, run)
  if all then
    for _, entry in ipairs(buffers(run)) do list[#list + 1] = entry end
  end
  list[#list + 1] = {"steps of the exchange", run.exchange.step}
  add_optimizer(list, run)
  compare(run.comm, what, list)
end

return M
