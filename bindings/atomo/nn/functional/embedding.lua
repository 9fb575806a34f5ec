--- embedding: rows of a table by index.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local C, check = f.C, f.check
local wrap, out = T.wrap, T.out

local F = {}

local embedding = func {
  name = "embedding",
  forward = function(ctx, index, weight)
    local o = out()
    weight = S.dense(weight, "embedding: weight")
    check(C.atomo_embedding(weight.h, index.h, o))
    ctx:save(index, weight)
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local index, weight = ctx:saved()
    local o, own = S.gradient_slot(ctx, 2)
    check(C.atomo_embedding_backward(weight.h, index.h, S.dense(gy, "embedding: gy").h, ctx.inputs[3], o))
    return nil, S.taken(o, own)
  end,
}

--- Looks up rows of weight [V, D] at index, i32 [...] from 0 -> [..., D]. Row padding_idx gets no gradient.
---@param index atomo.Tensor
---@param weight atomo.Tensor
---@param padding_idx integer?
---@return atomo.Tensor
---@usage F.embedding(atomo.tensor({1}, "i32"), atomo.eye(3)):get(1, 2) --> 1
function F.embedding(index, weight, padding_idx)
  local padding = -1
  if padding_idx ~= nil then padding = number.expect_whole(padding_idx, "embedding: padding_idx", -1, 2 ^ 31 - 1) end
  return embedding(S.indices(index, "embedding: input"), weight, padding)
end

return F
