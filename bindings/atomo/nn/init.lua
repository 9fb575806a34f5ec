--- atomo.nn: layers with PyTorch's names and defaults, gathered from the files of this folder.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local base = require "atomo.nn.module"

local nn = {Module = base.Module, is_module = base.is_module, init = require "atomo.nn.initial"}

for _, name in ipairs {"container", "conv", "conv_transpose", "linear", "norm", "group_norm", "pool", "activation",
  "embedding", "attention", "recurrent", "checkpoint", "loss"} do
  for class_name, class in pairs(require("atomo.nn." .. name)) do nn[class_name] = class end
end

--- Returns the convolution engine: "auto" (Winograd if it is faster, else direct), "direct", "winograd" (wherever it
-- applies), "onednn" or "gemm" (im2col). The environment variable ATOMO_CONV sets it at start.
---@return string
---@usage type(nn.conv_engine()) --> string
function nn.conv_engine()
  local name = f.ffi.string(f.C.atomo_conv_engine())
  if name == "" then f.check(f.C.atomo_conv_set_engine(os.getenv "ATOMO_CONV")) end -- raises: unknown engine
  return name
end

--- Sets the convolution engine. All except "onednn" are in every build; raises for an engine that is not.
---@param name "auto"|"direct"|"winograd"|"onednn"|"gemm"
---@usage nn.set_conv_engine(nn.conv_engine())
function nn.set_conv_engine(name) f.check(f.C.atomo_conv_set_engine(brief(name))) end

local strict = require "atomo.core.strict"
strict.module(nn.init, "nn.init")
return strict.module(nn, "nn")
