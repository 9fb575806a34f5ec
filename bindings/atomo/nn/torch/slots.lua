--- The tensors of a model as PyTorch has them: names, order, layouts.
--
-- Names: those of the modules here are PyTorch's, with two exceptions. In a Sequential, a batch norm with {relu = true}
-- is two modules there (BatchNorm2d, ReLU), and so is a GlobalAvgPool (AdaptiveAvgPool2d, Flatten): the numbers after
-- them are larger. A class may declare torch_names = {field = PyTorch's name, "" for none}, and a model's class
-- torch_name = function(name in a file) -> PyTorch's name here, nil for a tensor that has no counterpart.
--
-- Layouts: images are [N,H,W,C] here and [N,C,H,W] in PyTorch. So a convolution's weight is [out, kh, kw, in] here and
-- [out, in, kh, kw] there (in a transposed convolution, in and out change places). A linear layer after a Flatten of
-- images has its columns in the order h, w, c here and c, h, w there. A class may declare torch_layouts = {field =
-- "transposed"} for matrices.
local raise = require("atomo.ffi").raise

local M = {}

---@class atomo.torch.Slot
---@field name string           here
---@field torch string          in PyTorch
---@field tensor atomo.Tensor
---@field layout table|false    {to = f(t), from = f(t), shape = f(shape here) -> shape in PyTorch}; false: the same
---@field module atomo.Module
---@field field string          name of the tensor in its module

local function joined(a, b) return a == "" and b or b == "" and a or a .. "." .. b end

--- Number of entries among the first n of a Sequential that are two modules in PyTorch.
local function fused_before(sequential, n)
  local count = 0
  for i = 1, n do
    local layer = sequential[i]
    local class = type(layer) == "table" and layer.class_name
    if class == "GlobalAvgPool" or (class == "BatchNorm2d" or class == "BatchNorm1d") and layer.relu then
      count = count + 1
    end
  end
  return count
end

--- Returns PyTorch's name of a submodule.
local function translated(parent, name)
  local names = parent.torch_names
  if type(names) == "table" and names[name] then return names[name] end
  local index = parent.class_name == "Sequential" and tonumber(name)
  return index and ("%d"):format(index + fused_before(parent, index)) or name
end

--- Returns name here -> name in PyTorch of all submodules of a model, under each of their names.
local function names_of(model)
  local names = {}
  local function visit(module, here, there, open)
    if open[module] then return end
    open[module], names[here] = true, there
    for _, entry in ipairs(module:named_children()) do
      visit(entry[2], joined(here, entry[1]), joined(there, translated(module, entry[1])), open)
    end
    open[module] = nil
  end
  visit(model, "", "", {})
  return names
end

-- ---- layouts -----------------------------------------------------------------------------------------------------

--- [a, kh, kw, b] here, [a, b, kh, kw] in PyTorch.
local kernel = {
  to = function(t) return t:permute(1, 4, 2, 3):contiguous() end,
  from = function(t) return t:permute(1, 3, 4, 2):contiguous() end,
  shape = function(s) return {s[1], s[4], s[2], s[3]} end,
}

--- [h, w, c] here, [c, h, w] in PyTorch: of a layer norm over whole images.
local image = {
  to = function(t) return t:permute(3, 1, 2):contiguous() end,
  from = function(t) return t:permute(2, 3, 1):contiguous() end,
  shape = function(s) return {s[3], s[1], s[2]} end,
}

--- [a, b] here, [b, a] in PyTorch.
local transposed = {
  to = function(t) return t:t():contiguous() end,
  from = function(t) return t:t():contiguous() end,
  shape = function(s) return {s[2], s[1]} end,
}

local function same_shape(s) return s end

--- The last dimension is images joined to rows: h, w, c here, c, h, w in PyTorch.
local function columns(channels)
  local function turned(t, a, b)
    local shape = t:shape()
    return t:contiguous():view(-1, a, b):transpose(2, 3):contiguous():view(shape)
  end
  return {
    to = function(t) return turned(t, t:size(-1) / channels, channels) end,
    from = function(t) return turned(t, channels, t:size(-1) / channels) end,
    shape = same_shape,
  }
end

--- Classes of modules that leave the channels of images as they are: those without state.
local has_channels = {Conv2d = "out_channels", ConvTranspose2d = "out_channels", BatchNorm2d = "num_features"}

--- Returns the channels of the images that a module's rows of n elements come from; nil if they are no joined images.
--- state.channels: of the module before; false at the beginning, nil after a layer whose results are no images.
local function joined_channels(state, module, name, n)
  local given = state.flatten[name]
  if given ~= nil then return given or nil end
  if state.flattened and state.channels == false then -- the model begins with Flatten
    if not state.images then
      raise(("torch: the model joins its images to rows (%s has %d columns): say their channels, {channels = 3}, or " ..
        "{channels = 1} for rows"):format(joined(name, module.class_name), n))
    end
    return state.images
  end
  return state.channels or nil
end

--- Returns the layouts of a module's tensors by field; state is what is known of the modules before it.
local function layouts_of(module, name, state)
  local class = module.class_name
  if module.torch_layouts then
    local own = {}
    for field in pairs(module.torch_layouts) do own[field] = transposed end
    state.channels = nil
    return own
  end
  if class == "Flatten" then state.flattened = true end
  if has_channels[class] then
    state.channels = module[has_channels[class]]
    return class ~= "BatchNorm2d" and {weight = kernel} or {}
  end
  local n = class == "Linear" and module.in_features or class == "BatchNorm1d" and module.num_features
  if n then
    local channels = joined_channels(state, module, name, n)
    if class == "Linear" then state.channels = nil end
    if not channels or channels == n or channels == 1 then return {} end
    if n % channels ~= 0 then
      raise(("torch: %s takes %d columns, which are not images of %d channels: say which Linear follows joined " ..
        "images, {flatten = {[%q] = channels or false}}"):format(name, n, channels, name))
    end
    local layout = columns(channels)
    return class == "Linear" and {weight = layout} or
      {weight = layout, bias = layout, running_mean = layout, running_var = layout}
  end
  if class == "LayerNorm" and #module.normalized_shape == 3 then return {weight = image, bias = image} end
  if next(module:state_dict()) and #module:named_children() == 0 and class ~= "GroupNorm" and class ~= "LayerNorm" then
    state.channels = nil -- an embedding, a recurrent layer, ...
  end
  return {}
end

--- Returns the slots of a model in PyTorch's order. opts: channels of images that the model joins to rows at its
--- beginning; flatten = {name of a Linear = channels of the images joined to its rows, or false for none}, where that
--- cannot be seen from the modules.
---@param model atomo.Module
---@param opts {channels: integer?, flatten: table<string, integer|false>?}
---@return atomo.torch.Slot[]
function M.of(model, opts)
  local state = {channels = false, images = opts.channels, flatten = opts.flatten or {}, flattened = false}
  local layouts, names, list = {}, names_of(model), {}
  for _, entry in ipairs(model:named_modules()) do layouts[entry[2]] = layouts_of(entry[2], entry[1], state) end
  model:each_state(function(name, tensor, _, module, prefix)
    local field = prefix == "" and name or name:sub(#prefix + 2)
    local own = module.torch_names
    list[#list + 1] = {name = name, torch = joined(names[prefix], own and own[field] or field), tensor = tensor,
      layout = layouts[module][field] or false, module = module, field = field}
  end)
  return list
end

--- Returns the shape that a slot's tensor has in PyTorch.
---@param slot atomo.torch.Slot
---@return integer[]
function M.shape(slot)
  local shape = slot.tensor:shape()
  return slot.layout and slot.layout.shape(shape) or shape
end

return M
