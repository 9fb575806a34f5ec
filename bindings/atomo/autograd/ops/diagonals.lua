--- Diagonals of matrices: diagonal, diag, trace; and what is made of vectors: outer, meshgrid.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local K = require "atomo.autograd.ops.kernels"
local func = require("atomo.autograd").operator
local cat = require("atomo.autograd.ops.views").cat
local raise = f.raise
local Tensor = T.Tensor

local M = {}

--- Returns the view of the diagonal of t's last two dimensions that is k places right of the main one.
local function diagonal_view(t, k)
  local h, n, shape, stride = t.h, t.h.ndim, K.dims8(), K.dims8()
  local rows, columns = h.shape[n - 2], h.shape[n - 1]
  for d = 0, n - 3 do shape[d], stride[d] = h.shape[d], h.stride[d] end
  local count = math.max(0, math.min(rows + math.min(k, 0), columns - math.max(k, 0)))
  shape[n - 2], stride[n - 2] = count, h.stride[n - 2] + h.stride[n - 1]
  local offset = k < 0 and -k * h.stride[n - 2] or k * h.stride[n - 1]
  return K.make_view(t, shape, stride, count > 0 and offset or 0, n - 1)
end

local diagonal = func {
  name = "diagonal", is_view = true,
  forward = function(ctx, t, k) return diagonal_view(t, k) end,
  backward = function(ctx, g)
    local gt = T.zeros_like(ctx.inputs[1])
    local part = diagonal_view(gt, ctx.inputs[2])
    part:copy_(g)
    part:free()
    return gt
  end,
}

local function offset_of(k, who) return k == nil and 0 or number.expect_whole(k, who .. ": diagonal") end

--- Returns a view of the diagonal of a matrix, or of each matrix of a batch [..., n, m].
---@param offset integer?  places right of the main diagonal; negative: left. Default 0
---@param more any          refused: transpose or permute first
---@return atomo.Tensor a view
---@usage t:diagonal():get(2) --> 4
function Tensor:diagonal(offset, more)
  if more ~= nil then raise "diagonal: it is of the last two dimensions; t:permute(...) brings others there" end
  local k = offset_of(offset, "diagonal")
  if T.expect(self, "diagonal: tensor"):dim() < 2 then
    raise(("diagonal: tensor %s is no matrix, nor a batch of them"):format(T.shape_text(self)))
  end
  return diagonal(self, k)
end

--- Returns the matrix that has a vector on its diagonal and 0 elsewhere; of a matrix a copy of its diagonal.
---@param offset integer?  places right of the main diagonal; negative: left. Default 0
---@return atomo.Tensor
---@usage t:diag():diag():get(1, 2) --> 0
function Tensor:diag(offset)
  local k = offset_of(offset, "diag")
  local dims = T.expect(self, "diag: tensor"):dim()
  if dims == 2 then return self:diagonal(k):clone() end
  if dims ~= 1 then raise(("diag: tensor %s, expected a vector or a matrix"):format(T.shape_text(self))) end
  local n = self:size(1)
  local size = n + math.abs(k)
  local index = T.full({size * size}, n + 1, "i32") -- of the zero behind the vector's elements
  local p = index:data()
  for i = 0, n - 1 do p[(i + math.max(-k, 0)) * size + i + math.max(k, 0)] = i + 1 end
  return cat({self, T.zeros(1, self:dtype())}, 1):index_select(1, index):reshape(size, size)
end

--- Returns the sum of a matrix's diagonal.
---@return atomo.Tensor a scalar
---@usage t:trace():item() --> 5
function Tensor:trace()
  if T.expect(self, "trace: tensor"):dim() ~= 2 then
    raise(("trace: tensor %s is no matrix"):format(T.shape_text(self)))
  end
  return self:diagonal():sum()
end

--- Returns the matrix of the products of each element of this vector with each of another.
---@param u atomo.Tensor  a vector [m]
---@return atomo.Tensor  [n, m]
---@usage atomo.tensor({1, 2}):outer(atomo.tensor {3, 4}):get(2, 1) --> 6
function Tensor:outer(u)
  T.expect(self, "outer: tensor")
  T.expect(u, "outer: operand")
  if self:dim() ~= 1 or u:dim() ~= 1 then
    raise(("outer: tensors %s and %s, expected two vectors"):format(T.shape_text(self), T.shape_text(u)))
  end
  return self:unsqueeze(2) * u:unsqueeze(1)
end

--- Returns one view for each vector, all of the shape of their lengths: view k repeats vector k along dimension k. With
--- indexing = "xy" the first two dimensions are exchanged, as NumPy's default is.
---@param vectors atomo.Tensor[]
---@param indexing "ij"|"xy"|nil  default "ij"
---@return atomo.Tensor[]
---@usage atomo.meshgrid({atomo.arange(2), atomo.arange(3)})[2]:get(1, 3) --> 2
function M.meshgrid(vectors, indexing)
  if type(vectors) ~= "table" or T.is_tensor(vectors) or length(vectors, "meshgrid") == 0 then
    raise "meshgrid: expected a table of at least one vector: atomo.meshgrid({x, y})"
  end
  if indexing ~= nil and indexing ~= "ij" and indexing ~= "xy" then
    raise(("meshgrid: indexing is %s, expected 'ij' or 'xy'"):format(number.text(indexing)))
  end
  local sizes, list = {}, {}
  for k, v in ipairs(vectors) do
    if T.expect(v, ("meshgrid: vector %d"):format(k)):dim() ~= 1 then
      raise(("meshgrid: tensor %d is %s, expected a vector"):format(k, T.shape_text(v)))
    end
    sizes[k] = v:size(1)
  end
  for k, v in ipairs(vectors) do
    local ones = K.ones(#sizes)
    ones[k] = sizes[k]
    list[k] = v:reshape(ones):expand(sizes)
    if indexing == "xy" and #sizes > 1 then list[k] = list[k]:transpose(1, 2) end
  end
  return list
end

return M
