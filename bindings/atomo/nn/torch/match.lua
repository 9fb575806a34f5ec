--- Matches the tensors of a file with those of a model: by name, or by order if the file has other names.
local T = require "atomo.tensor"
local slots_of = require "atomo.nn.torch.slots"

local M = {}

--- Prefixes that wrappers of a model add to all names.
local wrappers = {"module.", "_orig_mod.", "model."}

--- Removes a wrapper's prefix that all names have.
local function unwrapped(names)
  local list = names
  for _, prefix in ipairs(wrappers) do
    local all = #list > 0
    for _, name in ipairs(list) do all = all and name:sub(1, #prefix) == prefix end
    if all then
      local short = {}
      for i, name in ipairs(list) do short[i] = name:sub(#prefix + 1) end
      list = short
    end
  end
  return list
end

--- Is this the count of batches of a batch norm? Models here have it only with momentum = false.
function M.is_count(name) return name:match "[^.]*$" == "num_batches_tracked" end

--- The kind of a tensor by its name's last part: "in_proj_weight" is a weight as "qkv.weight" is.
local function role(name)
  local last = name:match "[^.]*$"
  return last:match "weight_[ih]h_l%d+.*$" or last:match "bias_[ih]h_l%d+.*$" or last:match "running_%a+$" or
    last:match "weight$" or last:match "bias$" or last
end

local function equal(a, b) return T.shape_text(a) == T.shape_text(b) end

--- Pairs slots and entries one after the other; nil if number, roles or shapes differ.
local function by_order(slots, entries)
  local k, pairs_of = 0, {}
  for _, slot in ipairs(slots) do
    local counts = M.is_count(slot.name)
    repeat k = k + 1 until not entries[k] or counts or not M.is_count(entries[k].name)
    local entry = entries[k]
    if not entry or role(entry.name) ~= role(slot.name) or not equal(entry.spec.size, slots_of.shape(slot)) then
      return nil
    end
    pairs_of[slot] = entry
  end
  for rest = k + 1, #entries do
    if not M.is_count(entries[rest].name) then return nil end
  end
  return pairs_of
end

--- Pairs by name. Returns the pairs, and lists of texts: names that the file lacks, names that the model lacks, wrong
--- shapes. For a shared tensor one of its names is enough.
local function by_name(slots, entries, names)
  local at, used, found, pairs_of = {}, {}, {}, {}
  for i, name in ipairs(names) do at[name] = i end
  local missing, unexpected, wrong = {}, {}, {}
  for _, slot in ipairs(slots) do
    local i = at[slot.torch]
    if i then
      used[i] = true
      local shape = slots_of.shape(slot)
      if equal(entries[i].spec.size, shape) then
        pairs_of[slot], found[slot.tensor] = entries[i], true
      else
        wrong[#wrong + 1] = {slot = slot, text = ("%s is %s, expected %s"):format(names[i],
          T.shape_text(entries[i].spec.size), T.shape_text(shape))}
        found[slot.tensor] = true
      end
    end
  end
  for _, slot in ipairs(slots) do
    if not found[slot.tensor] then missing[#missing + 1] = slot.torch end
  end
  for i, name in ipairs(names) do
    if not used[i] and not M.is_count(name) then unexpected[#unexpected + 1] = name end
  end
  return pairs_of, missing, unexpected, wrong
end

---@class atomo.torch.Match
---@field pairs table<atomo.torch.Slot, table>  slot -> entry of the file
---@field how string           "names" or "order"
---@field missing string[]     names in PyTorch of tensors that the file lacks
---@field unexpected string[]  names in the file that the model lacks
---@field wrong {slot: table, text: string}[]   tensors of another shape
---@field counts table<string, table>  name of a batch norm in the file -> entry of its count of batches

--- Returns the entries that have a name in PyTorch's model, and these names.
local function named(all, rename)
  local names, kept, entries = {}, {}, {}
  for i, entry in ipairs(all) do names[i] = entry.name end
  for i, name in ipairs(unwrapped(names)) do
    if rename then name = rename(name) end
    if name then kept[#kept + 1], entries[#entries + 1] = name, all[i] end
  end
  return entries, kept
end

--- Finds each slot's tensor in a file.
---@param slots atomo.torch.Slot[]
---@param all {name: string, spec: table}[]
---@param rename (fun(name: string): string|nil)?  torch_name of the model's class
---@return atomo.torch.Match
function M.find(slots, all, rename)
  local entries, names = named(all, rename)
  local counts = {}
  for i, name in ipairs(names) do
    if M.is_count(name) then counts[entries[i].name:match "^(.-)%.?[^.]*$"] = entries[i] end
  end
  local pairs_of, missing, unexpected, wrong = by_name(slots, entries, names)
  if #missing + #unexpected + #wrong > 0 then
    local ordered = by_order(slots, entries)
    if ordered then
      return {pairs = ordered, how = "order", missing = {}, unexpected = {}, wrong = {}, counts = counts}
    end
  end
  return {pairs = pairs_of, how = "names", missing = missing, unexpected = unexpected, wrong = wrong, counts = counts}
end

return M
