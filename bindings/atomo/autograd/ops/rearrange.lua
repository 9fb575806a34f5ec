--- Elements in another order or number: flip, roll, tile, repeat_interleave; triangles of matrices: tril, triu. All
-- return copies.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local length = require "atomo.core.list"
local number = require "atomo.core.number"
local where = require("atomo.autograd.ops.select").where
local raise = f.raise
local Tensor, dimension = T.Tensor, T.dimension

--- Returns the i32 tensor of at(1), at(2), ... at(n).
local function index_of(n, at)
  local t = T.empty(n, "i32")
  local p = t:data()
  for i = 1, n do p[i - 1] = at(i) end
  return t
end

--- Returns a copy with the elements along each of these dimensions in reverse order.
---@param ... integer|integer[] dimensions, each once
---@return atomo.Tensor
---@usage t:flip(1):get(1, 1) --> 3
function Tensor:flip(...)
  local dims = type((...)) == "table" and (...) or {...}
  T.self_handle(self)
  if length(dims, "flip: dimensions") == 0 then raise "flip: no dimension is named; t:flip(1) reverses the first" end
  local y, seen = self, {}
  for _, dim in ipairs(dims) do
    local d = dimension(self, dim, "flip") + 1
    if seen[d] then raise(("flip: dimension %d named twice"):format(d)) end
    seen[d] = true
    local n = self:size(d)
    y = y:index_select(d, index_of(n, function(i) return n + 1 - i end))
  end
  return y
end

--- Returns a copy with the elements moved by `shift` places along dim; those that leave at one end enter at the other.
---@param shift integer  negative: towards the beginning
---@param dim integer?   default: along all elements, in row-major order
---@return atomo.Tensor
---@usage t:roll(1, 2):get(1, 1) --> 2
function Tensor:roll(shift, dim)
  T.self_handle(self)
  if type(shift) == "table" then raise "roll: one dimension at a time: t:roll(1, 1):roll(2, 2)" end
  shift = number.expect_whole(shift, "roll: shift")
  if dim == nil then return self:reshape(-1):roll(shift, 1):reshape(self:shape()) end
  local d = dimension(self, dim, "roll") + 1
  local n = self:size(d)
  return self:index_select(d, index_of(n, function(i) return (i - 1 - shift) % n + 1 end))
end

--- Returns a copy with every slice along dim `times` times in a row: 1 2 gives 1 1 2 2.
---@param times integer|integer[]  one number, or one for each slice
---@param dim integer?  default: of all elements, in row-major order
---@return atomo.Tensor
---@usage t:repeat_interleave(2, 1):size(1) --> 4
function Tensor:repeat_interleave(times, dim)
  T.self_handle(self)
  if dim == nil then return self:reshape(-1):repeat_interleave(times, 1) end
  local d = dimension(self, dim, "repeat_interleave") + 1
  local n = self:size(d)
  if type(times) ~= "table" then
    local count = number.expect_whole(times, "repeat_interleave: times", 0)
    return self:index_select(d, index_of(n * count, function(i) return math.floor((i - 1) / count) + 1 end))
  end
  local given, at = length(times, "repeat_interleave: times"), {}
  if given ~= n then
    raise(("repeat_interleave: %d numbers for dimension %d, which has %d"):format(given, d, n))
  end
  for i = 1, n do
    for _ = 1, number.expect_whole(times[i], ("repeat_interleave: number %d"):format(i), 0) do at[#at + 1] = i end
  end
  return self:index_select(d, index_of(#at, function(i) return at[i] end))
end

--- Returns copies side by side: t:tile(2, 3) has t twice along the first dimension and three times along the second.
--- The counts are for the last dimensions; there may be more of them than dimensions. (PyTorch's repeat, which is a
--- word of Lua, and Torch's repeatTensor.)
---@param ... integer|integer[] counts
---@return atomo.Tensor
---@usage t:tile(2, 3):size(2) --> 6
function Tensor:tile(...)
  local counts = type((...)) == "table" and {unpack((...))} or {...}
  T.self_handle(self)
  if length(counts, "tile: counts") == 0 then
    raise "tile: no count is given; t:tile(2, 3) repeats twice down, three times across"
  end
  for i, n in ipairs(counts) do counts[i] = number.expect_whole(n, ("tile: count %d"):format(i), 0) end
  while #counts < T.self_handle(self).ndim do table.insert(counts, 1, 1) end
  local sizes = self:shape()
  while #sizes < #counts do table.insert(sizes, 1, 1) end
  local y = self:reshape(sizes)
  for d, count in ipairs(counts) do
    local n = sizes[d]
    if count ~= 1 then y = y:index_select(d, index_of(n * count, function(i) return (i - 1) % n + 1 end)) end
  end
  return y.h.storage == self.h.storage and y:clone() or y
end

--- Makes tril or triu. keeps(offset, k): is the element `offset` places right of the main diagonal kept?
local function triangle(name, keeps)
  Tensor[name] = function(self, diagonal)
    local k = diagonal == nil and 0 or number.expect_whole(diagonal, name .. ": diagonal")
    local n = T.expect(self, name .. ": tensor").h.ndim
    if n < 2 then raise(("%s: tensor %s is no matrix, nor a batch of them"):format(name, T.shape_text(self))) end
    local rows, columns = self:size(-2), self:size(-1)
    local mask = T.empty(rows, columns)
    local p = mask:data()
    for i = 0, rows - 1 do
      for j = 0, columns - 1 do p[i * columns + j] = keeps(j - i, k) and 1 or 0 end
    end
    return where(mask, self, 0)
  end
end
triangle("tril", function(offset, k) return offset <= k end)
triangle("triu", function(offset, k) return offset >= k end)

return {}
