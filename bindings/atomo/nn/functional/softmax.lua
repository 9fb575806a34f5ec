--- softmax and log_softmax along a dimension.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local wrap, out, dense = T.wrap, T.out, S.dense

local F = {}

local function softmax(name, log)
  local op = func {
    name = name,
    forward = function(ctx, x, dim)
      local o = out()
      check(C.atomo_softmax(dense(x, name .. ": input").h, dim, log, o))
      local y = wrap(o[0])
      ctx:save(y:detach())
      return y
    end,
    backward = function(ctx, gy)
      local o = out()
      check(C.atomo_softmax_backward(ctx:saved().h, dense(gy, name .. ": gy").h, ctx.inputs[2], log, o))
      return wrap(o[0])
    end,
  }
  return function(x, dim)
    T.expect(x, name .. ": input", "f32")
    return op(x, T.dimension(x, dim or -1, name))
  end
end

--- F.softmax(x, dim), F.log_softmax(x, dim): over dimension dim, default the last.
F.softmax = softmax("softmax", 0)
F.log_softmax = softmax("log_softmax", 1)

return F
