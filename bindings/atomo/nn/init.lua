--- atomo.nn: layers. Names and defaults are PyTorch's; a file or a small group of layers each, gathered here.
local f = require "atomo.ffi"
local base = require "atomo.nn.module"

local nn = {Module = base.Module, is_module = base.is_module, init = require "atomo.nn.initial"}

for _, name in ipairs {"container", "conv", "conv_transpose", "linear", "norm", "group_norm", "pool", "activation",
  "embedding", "attention", "recurrent", "checkpoint", "loss"} do
  for class_name, class in pairs(require("atomo.nn." .. name)) do nn[class_name] = class end
end

--- What computes convolutions: "auto" (Winograd where it pays, else direct), "direct", "winograd" (wherever possible),
-- "onednn" or "gemm" (im2col). The environment's ATOMO_CONV chooses at start.
function nn.conv_engine()
  local name = f.ffi.string(f.C.atomo_conv_engine())
  if name == "" then f.check(f.C.atomo_conv_set_engine(os.getenv "ATOMO_CONV")) end -- raises: it names no engine
  return name
end

--- Changes it; all but "onednn" are in every build.
function nn.set_conv_engine(name) f.check(f.C.atomo_conv_set_engine(tostring(name))) end

return nn
