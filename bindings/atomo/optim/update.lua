--- The update of one parameter by each optimizer (stage 9), with PyTorch's formulas, in one pass in C.
-- update.KIND(group, i, p, g, lr, t): p the parameter, g its gradient (both contiguous), t its step number, from 1.
local f = require "atomo.ffi"
local C, check = f.C, f.check

local update = {}

function update.sgd(group, i, p, g, lr, t)
  local velocity = group.momentum > 0 and group:state_of("velocity")[i].h or nil
  check(C.atomo_optim_sgd(p.h, g.h, velocity, lr, group.momentum, group.dampening, group.weight_decay, 1,
    group.nesterov and 1 or 0, t == 1 and 1 or 0))
end

local function adam(group, i, p, g, lr, t, decoupled)
  local largest = group.amsgrad and group:state_of("largest")[i].h or nil
  check(C.atomo_optim_adam(p.h, g.h, group:state_of("first")[i].h, group:state_of("second")[i].h, largest, lr,
    group.beta1, group.beta2, group.eps, group.weight_decay, decoupled, t))
end

function update.adam(group, i, p, g, lr, t) adam(group, i, p, g, lr, t, 0) end
function update.adamw(group, i, p, g, lr, t) adam(group, i, p, g, lr, t, 1) end

--- Layer-wise rate [You, Gitman, Ginsburg 2017]: lr is multiplied by trust * |w| / (|g| + weight_decay * |w|) for
--- tensors of two or more dimensions, by 1 for biases and norms. The velocity accumulates the scaled gradient.
function update.lars(group, i, p, g, lr, t)
  local scale = 1
  if p:dim() >= 2 then
    local w, length = p:norm_value(), g:norm_value()
    if w > 0 and length > 0 then scale = group.trust * w / (length + group.weight_decay * w + group.eps) end
  end
  check(C.atomo_optim_sgd(p.h, g.h, group:state_of("velocity")[i].h, lr, group.momentum, 0, group.weight_decay, scale,
    0, t == 1 and 1 or 0))
end

function update.lamb(group, i, p, g, lr, t)
  check(C.atomo_optim_lamb(p.h, g.h, group:state_of("first")[i].h, group:state_of("second")[i].h, lr, group.beta1,
    group.beta2, group.eps, group.weight_decay, t))
end

--- State that each kind keeps per parameter after its first step: name -> function(options) -> is it kept?
local always, momentum = function() return true end, function(o) return o.momentum > 0 end
local moments = {first = always, second = always, largest = function(o) return o.amsgrad end}
local state = {sgd = {velocity = momentum}, lars = {velocity = always}, adam = moments, adamw = moments,
  lamb = {first = always, second = always}}

return {update = update, state = state}
