--- atomo.torch: loads weights of PyTorch and torchvision into models of atomo.nn, and saves models of atomo.nn for
-- PyTorch. The files are those of torch.save of a state_dict, with PyTorch's names and layouts.
local autograd = require "atomo.autograd"
local check_options = require "atomo.tensor.check_options"
local file = require "atomo.nn.torch.file"
local is_module = require("atomo.nn.module").is_module
local match = require "atomo.nn.torch.match"
local slots_of = require "atomo.nn.torch.slots"
local raise = require("atomo.ffi").raise

local M = {}

--- Module -> number of batches that PyTorch had counted in this batch norm when its weights were loaded; it is saved
--- again.
local counted = setmetatable({}, {__mode = "k"})

local rules = {strict = check_options.flag, channels = check_options.whole(1), flatten = true, like = true}

local function checked(who, path, model, opts, not_here)
  if type(path) ~= "string" or path == "" then
    raise(("%s: path is %s, expected a file name"):format(who, path == "" and "empty" or "a " .. type(path)))
  end
  if not is_module(model) then raise(("%s: model is a %s, expected an nn.Module"):format(who, type(model))) end
  opts = opts == nil and {} or opts
  local own = {}
  for name, rule in pairs(rules) do own[name] = name ~= not_here and rule or nil end
  check_options.check(who, opts, own)
  if opts.flatten ~= nil and type(opts.flatten) ~= "table" then
    raise(("%s: flatten is a %s, expected {name of a Linear = channels, or false}"):format(who, type(opts.flatten)))
  end
  return opts
end

--- Returns the first six texts joined by commas, and the number of the others.
local function shortened(list)
  local shown = {}
  for i = 1, math.min(#list, 6) do shown[i] = list[i] end
  if #list > 6 then shown[7] = ("and %d more"):format(#list - 6) end
  return table.concat(shown, ", ")
end

--- Raises an error that lists the differences between a file and a model.
local function refuse_difference(path, found)
  local texts, wrong = {}, {}
  for i, each in ipairs(found.wrong) do wrong[i] = each.text end
  for _, part in ipairs {{"missing", found.missing}, {"unexpected", found.unexpected}, {"wrong shape", wrong}} do
    if #part[2] > 0 then texts[#texts + 1] = ("%s: %s"):format(part[1], shortened(part[2])) end
  end
  if #texts > 0 then
    raise(("torch: %s does not fit the model, neither by name nor by order: %s"):format(path,
      table.concat(texts, "; ")))
  end
end

--- Raises unless all names of a shared tensor have the same values in the file.
local function check_shared(path, opened, values)
  local first = {}
  for slot, value in pairs(values) do
    local other = first[slot.tensor]
    if other and other.value:bytes() ~= value:bytes() then
      raise(("torch: %s has two values for one tensor here: %s and %s"):format(path, opened.pairs[other.slot].name,
        opened.pairs[slot].name))
    end
    first[slot.tensor] = {slot = slot, value = value}
  end
end

--- Returns the counts of batches of a file's batch norms, by module.
local function counts_of(opened, found)
  local counts = {}
  for slot, entry in pairs(found.pairs) do
    local norm = entry.name:match "^(.-)%.?[^.]*$"
    if slot.field == "running_mean" and found.counts[norm] then
      counts[slot.module] = file.tensor(opened, found.counts[norm]):item()
    end
  end
  return counts
end

--- Loads the weights of a PyTorch file (torch.save of a state_dict, .pt or .pth, since PyTorch 1.6) into a model. Names
--- are matched; if they differ, tensors are matched by their order, kinds and shapes, all of them or none. Layouts are
--- converted: kernels, and columns of a Linear after Flatten. The file's pickle is read without executing anything.
--- Raises for damaged files and, unless strict = false, for tensors on one side only or of another shape; then nothing
--- has changed.
---@param path string
---@param model atomo.Module
---@param opts {strict: boolean?, channels: integer?, flatten: table?}?  channels: of images that the model joins to
--- rows at its beginning (an MLP); flatten: {name of a Linear = channels of the joined images, or false}, where that
--- cannot be seen from the modules
---@return {how: string, loaded: integer, left_out: string[], missing: string[], unexpected: string[], wrong: string[]}
--- how: "names" or "order"; left_out: names of the model's tensors that keep their values; the lists are empty unless
--- strict = false
---@usage pcall(atomo.torch.load, "missing.pt", m) --> false
function M.load(path, model, opts)
  opts = checked("torch.load", path, model, opts, "like")
  local slots, opened = slots_of.of(model, opts), file.open(path)
  local found = match.find(slots, opened.tensors, model.torch_name)
  if opts.strict ~= false then refuse_difference(path, found) end
  local values, loaded, count = {}, {}, 0
  for slot, entry in pairs(found.pairs) do
    local value = file.tensor(opened, entry)
    values[slot] = slot.layout and slot.layout.from(value) or value
    loaded[slot.tensor], count = true, count + 1
  end
  check_shared(path, found, values)
  local counts = counts_of(opened, found)
  autograd.no_grad(function()
    for slot, value in pairs(values) do slot.tensor:copy_(value) end
  end)
  for module, n in pairs(counts) do counted[module] = n end
  local wrong, left_out = {}, {}
  for i, each in ipairs(found.wrong) do wrong[i] = each.text end
  for _, slot in ipairs(slots) do
    if not loaded[slot.tensor] then left_out[#left_out + 1] = slot.name end
  end
  return {how = found.how, loaded = count, left_out = left_out, missing = found.missing,
    unexpected = found.unexpected, wrong = wrong}
end

-- ---- saving ------------------------------------------------------------------------------------------------------

--- Returns a function(slot) -> the slot's tensor in PyTorch's layout; the same one for all names of a shared tensor.
local function converter()
  local made = {}
  return function(slot)
    local t = slot.tensor
    if not made[t] then
      local plain = t:detach()
      made[t] = slot.layout and slot.layout.to(plain) or plain:contiguous()
    end
    return made[t]
  end
end

--- Does PyTorch's module have a count of batches that the one here lacks, after this slot?
local function has_count(slot) return slot.field == "running_var" and not rawget(slot.module, "num_batches_tracked") end

--- Returns the entries of a file with the names here.
local function entries_of(slots, convert)
  local list = {}
  for _, slot in ipairs(slots) do
    if slot.field == "num_batches_tracked" then
      list[#list + 1] = {name = slot.torch, count = slot.tensor:item()}
    else
      list[#list + 1] = {name = slot.torch, tensor = convert(slot)}
    end
    if has_count(slot) then
      list[#list + 1] = {name = slot.torch:gsub("running_var$", "num_batches_tracked"),
        count = counted[slot.module] or 0}
    end
  end
  return list
end

--- Returns the entries of a file with the names and the order of file `like`.
local function entries_like(like, slots, convert, rename)
  local opened = file.open(like)
  local found = match.find(slots, opened.tensors, rename)
  refuse_difference(like, found)
  local slot_of, list = {}, {}
  for slot, entry in pairs(found.pairs) do slot_of[entry] = slot end
  for _, entry in ipairs(opened.tensors) do
    local slot = slot_of[entry]
    if slot and slot.field ~= "num_batches_tracked" then
      list[#list + 1] = {name = entry.name, tensor = convert(slot)}
    elseif slot then
      list[#list + 1] = {name = entry.name, count = slot.tensor:item()}
    elseif match.is_count(entry.name) then
      list[#list + 1] = {name = entry.name, count = file.tensor(opened, entry):item()}
    end
  end
  return list
end

--- Writes a model's weights as a file for PyTorch: model.load_state_dict(torch.load(path)) there. Names are those of
--- the modules here, in ResNets torchvision's. With like = FILE, a file of the PyTorch model (torch.save of its
--- state_dict), they are the names in that file. The file is either complete or absent.
---@param path string
---@param model atomo.Module
---@param opts {like: string?, channels: integer?, flatten: table?}?  channels, flatten: as of load
---@usage atomo.torch.save("m.pt", m)
function M.save(path, model, opts)
  opts = checked("torch.save", path, model, opts, "strict")
  if opts.like ~= nil and type(opts.like) ~= "string" then
    raise(("torch.save: like is a %s, expected a file name"):format(type(opts.like)))
  end
  local slots, convert = slots_of.of(model, opts), converter()
  if #slots == 0 then raise "torch.save: the model has no parameters and no buffers" end
  file.write(path, opts.like and entries_like(opts.like, slots, convert, model.torch_name) or
    entries_of(slots, convert))
end

return M
