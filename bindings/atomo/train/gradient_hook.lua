--- Calls on_gradients of atomo.train: the user's function sees, and may change, this rank's gradients after backward
-- and before the exchange (between stages 3 and 4). The function gets {name = gradient} of the trained parameters.
local T = require "atomo.tensor"
local gradient = require "atomo.autograd.gradient"
local grad_mode = require "atomo.autograd"
local raise = require("atomo.ffi").raise

local M = {}

--- Calls hook(gradients, info). trained: atomo.Trained; info: {step=, rank=, lr=}. Raises if the function has put
--- another tensor in a gradient's place, or freed one: it changes gradients in place.
function M.call(hook, trained, info)
  local grads = {}
  for i, p in ipairs(trained.list) do grads[trained.labels[i]] = gradient.dense(p) end
  T.scope(function() grad_mode.no_grad(function() hook(grads, info) end) end)
  for i, p in ipairs(trained.list) do
    local name = trained.labels[i]
    local what = ("train: on_gradients: gradient of %s"):format(name)
    if not rawequal(grads[name], p.grad) then
      raise(what .. " was replaced; change it in place, such as g:mul_(0.5) or g:copy_(other)")
    end
    T.expect(p.grad, what, "f32")
  end
end

return M
