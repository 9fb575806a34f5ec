--- Initial values of a model from a file (--init): all tensors, or all except those of the last layer if the file's
-- network has another number of classes.
local T = require "atomo.tensor"
local torch = require "atomo.nn.torch"
local trained = require "atomo.tools.trained"
local raise = require("atomo.ffi").raise

local M = {}

--- Returns the set of names of the tensors of a model's last layer with parameters.
local function last_layer(model)
  local list, names = model:named_parameters(), {}
  local prefix = list[#list][1]:match "^(.-)[^.]*$"
  for _, entry in ipairs(list) do
    if entry[1]:sub(1, #prefix) == prefix then names[entry[1]] = true end
  end
  return names
end

--- Loads a PyTorch file; returns the number of tensors loaded, the names of those left out, and how they were matched.
local function from_torch(path, model, channels)
  local of_last, got = last_layer(model), torch.load(path, model, {strict = false, channels = channels})
  local bad = #got.missing + #got.unexpected > 0
  for _, name in ipairs(got.left_out) do bad = bad or not of_last[name] end
  if bad then torch.load(path, model, {channels = channels}) end -- raises what does not fit
  return got.loaded, got.left_out, got.how
end

--- Returns the names of the last layer's tensors whose shapes differ; empty if others differ, too.
local function other_classes(model, tensors)
  local of_last, list = last_layer(model), {}
  for name, t in pairs(model:state_dict()) do
    local given = tensors[name]
    if given and T.shape_text(given) ~= T.shape_text(t) then
      if not of_last[name] then return {} end
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

local function from_tensors(found, model)
  local tensors, left_out, count = {}, other_classes(model, found.tensors), 0
  for name, t in pairs(found.tensors) do tensors[name], count = t, count + 1 end
  for _, name in ipairs(left_out) do tensors[name] = model:state_dict()[name] end
  local ok, why = pcall(model.load_state_dict, model, tensors)
  if not ok then raise(("%s does not fit the model: %s"):format(found.path, trained.shortened(why))) end
  return count - #left_out, left_out, "names"
end

--- Loads a model's initial values from anything that scripts/evaluate.lua takes. Raises if the file does not fit.
---@param path string
---@param model atomo.Module
---@param channels integer  of the images
---@return integer loaded   number of tensors
---@return string[] left_out  tensors of the last layer that keep their values: the file has other numbers of classes
---@return string how         "names", or "order": matched one after the other
function M.load(path, model, channels)
  local found = trained.read(path)
  if found.torch then return from_torch(path, model, channels) end
  return from_tensors(found, model)
end

return M
