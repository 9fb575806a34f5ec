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

--- Returns padding_idx counted from the first of `rows` rows; -1 for nil: no such row.
local function padding_row(padding_idx, rows)
  if padding_idx == nil then return -1 end
  local row = number.expect_whole(padding_idx, "embedding: padding_idx", -2 ^ 31, 2 ^ 31 - 1)
  if row < -rows or row >= rows then
    f.raise(("embedding: padding_idx is %d, expected %d to %d: weight has %d rows"):format(row, -rows, rows - 1, rows))
  end
  return row < 0 and rows + row or row
end

--- Looks up rows of weight [V, D] at index, i32 [...] from 0 -> [..., D]. Row padding_idx (negative: from the end) gets
--- no gradient.
---@param index atomo.Tensor
---@param weight atomo.Tensor
---@param padding_idx integer?
---@return atomo.Tensor
---@usage F.embedding(atomo.tensor({1}, "i32"), atomo.eye(3)):get(1, 2) --> 1
function F.embedding(index, weight, padding_idx)
  index = S.indices(index, "embedding: input")
  T.expect(weight, "embedding: weight", "f32")
  return embedding(index, weight, padding_row(padding_idx, weight:dim() > 0 and weight:size(1) or 0))
end

return F
