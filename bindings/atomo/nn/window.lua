--- Kernel, stride, padding, dilation and groups as the C struct atomo_window, checked.
local f = require "atomo.ffi"
local ffi, raise = f.ffi, f.raise

local M = {}
local ctype = ffi.typeof "atomo_window"
local known = {stride = true, padding = true, dilation = true, groups = true}

local function whole(v, least) return type(v) == "number" and v % 1 == 0 and v >= least and v < 2 ^ 24 end

--- height, width of v: a number or {height, width}.
local function pair(layer, name, v, default, least)
  if v == nil then v = default end
  local h, w = v, v
  if type(v) == "table" then h, w = v[1], v[2] end
  if not (whole(h, least) and whole(w, least)) then
    raise(("%s: %s is %s, expected a whole number >= %d or {height, width}"):format(layer, name,
      type(v) == "table" and ("{%s, %s}"):format(tostring(h), tostring(w)) or tostring(v), least))
  end
  return h, w
end
M.pair = pair

--- Raises for a key of opts that is in neither list: "conv2d: unknown option 'strid', options are ...".
function M.check_options(layer, opts, ...)
  if type(opts) ~= "table" then raise(("%s: options are a %s, expected a table"):format(layer, type(opts))) end
  for name in pairs(opts) do
    local found = false
    local names = {}
    for i = 1, select("#", ...) do
      for k in pairs((select(i, ...))) do
        found = found or k == name
        names[#names + 1] = k
      end
    end
    if not found then
      table.sort(names)
      raise(("%s: unknown option '%s', options are %s"):format(layer, tostring(name), table.concat(names, ", ")))
    end
  end
end

local function fill(layer, opts, kernel)
  local w = ctype()
  w.kernel[0], w.kernel[1] = pair(layer, "kernel", kernel or 1, nil, 1)
  w.stride[0], w.stride[1] = pair(layer, "stride", opts.stride, kernel or 1, 1)
  w.padding[0], w.padding[1] = pair(layer, "padding", opts.padding, 0, 0)
  w.dilation[0], w.dilation[1] = pair(layer, "dilation", opts.dilation, 1, 1)
  local groups = opts.groups or 1
  if not whole(groups, 1) then
    raise(("%s: groups is %s, expected a whole number >= 1"):format(layer, tostring(groups)))
  end
  w.groups = groups
  return w
end

local plain = fill("conv2d", {})

--- Of a convolution; opts may be a window already, or nil. `extra` are further names that opts may have.
function M.of(layer, opts, extra)
  if opts == nil then return plain end
  if type(opts) == "cdata" then return opts end
  M.check_options(layer, opts, known, extra or {})
  return fill(layer, opts)
end

local pool_known = {stride = true, padding = true}
local pool_dilated = {stride = true, padding = true, dilation = true}

--- Of a pooling layer; the stride is the kernel unless given.
function M.pooling(layer, kernel, opts)
  if type(kernel) == "cdata" then return kernel end
  opts = opts or {}
  M.check_options(layer, opts, layer:find "^max" and pool_dilated or pool_known)
  if kernel == nil then raise(layer .. ": kernel is missing, expected a number or {height, width}") end
  local w = fill(layer, opts, kernel)
  for i = 0, 1 do
    if 2 * w.padding[i] > w.kernel[i] then
      raise(("%s: padding %d is more than half of kernel %d"):format(layer, w.padding[i], w.kernel[i]))
    end
  end
  return w
end

return M
