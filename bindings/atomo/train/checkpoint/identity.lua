--- The settings, script, data and versions of the run that saved a checkpoint. They are compared when a run is resumed,
-- and differences are printed: the resumed run is then not bit-identical to an uninterrupted one.
local same = require "atomo.comm.consistency"

local M = {}

--- Settings that do not affect the results of later steps, so that they are not compared.
local harmless = {saves = true, resumes = true, max_steps = true, check_replicas = true, save_every = true, keep = true,
  stop_after = true, overlap = true, quiet = true, profile = true, stall_warn = true, stall_abort = true,
  sharded_optimizer = true}

--- Names that may differ between two starts of one run: they depend on the number of ranks, or on the parameters frozen
--- at the start.
M.of_a_start = {ranks = true, steps = true, frozen = true, ["data: size"] = true, ["test data: size"] = true}

--- The values of settings that checkpoints of earlier versions lack.
local before = {precision = "fp32", activations = "fp32", message_buckets = "0", sharded_weights = "fp32"}

--- Options of the exchange on which results depend. A run with option `settings` names them there.
local of_exchange = {"seed", "min_size", "fuse_small", "downlink", "inter_node", "message_buckets"}

--- Names that checkpoints of earlier versions lack, by kind: not compared with a checkpoint that has none of the kind.
local kinds = {{"^data: "}, {"^test data: "}, {"^exchange: "}, {"^layer '", "^the model$", "^the loss$", "^loss '"},
  {"^manual_seed$"}}

--- Adds what the items do not say: kind and options of layers and loss, the exchange's options, the random seed.
local function add_more(list, run, items)
  local given, root = run.settings or {}, {model = "the model", loss = "the loss"}
  for _, item in ipairs(items) do
    if item.structure then list[root[item[1]] or item[1]] = same.text(item[2]) end
  end
  for _, name in ipairs(of_exchange) do
    local value = run.exchange.settings[name]
    if given[name] == nil then list["exchange: " .. name] = same.text(value == nil and 0 or value) end
  end
  if given.seed == nil then list.manual_seed = same.text(run.start_seed) end
end

--- Returns the identity of a run, name -> text. items: consistency.training(run), before the first step. The data of a
--- run on one rank are added if it is saved or resumed, so that a run on another number of ranks compares its own.
function M.of(run, items)
  local list, frozen = {}, {}
  if run.comm.size == 1 and (run.save or run.resume) then
    for _, item in ipairs(same.data_of_one(run)) do list[item[1]] = same.text(item[2]) end
  end
  for _, item in ipairs(items) do
    local is_left_out = harmless[item[1]] or item.structure or item[1]:match "^parameter %d+$"
    if not is_left_out then list[item[1]] = same.text(item[2]) end
  end
  for i, p in ipairs(run.optimizer.params) do
    if not p.requires_grad then frozen[#frozen + 1] = run.names and run.names[i] or ("parameter %d"):format(i) end
  end
  table.sort(frozen)
  list.frozen = table.concat(frozen, ", ")
  list.seed = list.seed or same.text(run.start_seed)
  list.compressor, list.topology = tostring(run.exchange.compressor), run.exchange.topology
  list.ranks = ("%d"):format(run.comm.size)
  add_more(list, run, items)
  return list
end

local function is_of(kind, name)
  for _, pattern in ipairs(kind) do
    if name:find(pattern) then return true end
  end
  return false
end

--- Is `name` of a kind that the saved identity lacks?
local function is_unknown(saved, name)
  for _, kind in ipairs(kinds) do
    local lacks = is_of(kind, name)
    for other in pairs(lacks and saved or {}) do lacks = lacks and not is_of(kind, other) end
    if lacks then return true end
  end
  return false
end

--- Returns the differences between the saved run and this one, "lr 0.1 -> 0.05, ..."; nil if there are none.
---@param saved table<string, string>
---@param now table<string, string>
---@param skip table<string, boolean>   names that are not compared here
function M.differences(saved, now, skip)
  local names, lines = {}, {}
  for name in pairs(saved) do names[#names + 1] = name end
  for name in pairs(now) do
    if saved[name] == nil and not is_unknown(saved, name) then names[#names + 1] = name end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local a, b = saved[name] or before[name] or "none", now[name] or "none"
    if a ~= b and not skip[name] then
      lines[#lines + 1] = ("%s %s -> %s"):format(name, a == "" and "none" or a, b == "" and "none" or b)
    end
  end
  return #lines > 0 and table.concat(lines, ", ") or nil
end

return M
