--- einsum: sums of products named by letters, "ij,jk->ik". Each pair of tensors becomes one batch of matrix products.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local raise = f.raise

local M = {}

--- Returns the letters of one operand; raises unless they fit its dimensions.
local function letters_of(text, what)
  local list, seen = {}, {}
  for c in text:gmatch "." do
    if not c:match "%a" then
      raise(("einsum: '%s' in %s, expected letters, as in \"ij,jk->ik\"%s"):format(c, what,
        c == "." and "; '...' is not supported, name each dimension" or ""))
    end
    if seen[c] then
      raise(("einsum: letter '%s' twice in %s: a diagonal or trace is not supported; multiply by atomo.eye(n) and sum")
        :format(c, what))
    end
    list[#list + 1], seen[c] = c, true
  end
  return list, seen
end

--- Returns a list of letter lists of the operands, and the letters of the result. Without "->", the result has the
--- letters that occur once, in alphabetical order.
local function parse(spec, count)
  if type(spec) ~= "string" then
    raise(("einsum: equation is a %s, expected a string, as \"ij,jk->ik\""):format(type(spec)))
  end
  local text = spec:gsub("%s", "")
  local left, right = text:match "^(.-)%->(.*)$"
  left = left or text
  local terms, uses = {}, {}
  for term in (left .. ","):gmatch "([^,]*)," do
    terms[#terms + 1] = letters_of(term, ("operand %d"):format(#terms + 1))
    for _, c in ipairs(terms[#terms]) do uses[c] = (uses[c] or 0) + 1 end
  end
  if #terms ~= count then
    raise(("einsum: \"%s\" names %d operands, got %d tensors"):format(spec, #terms, count))
  end
  local result = {}
  if right then
    result = letters_of(right, "the result")
    for _, c in ipairs(result) do
      if not uses[c] then raise(("einsum: letter '%s' of the result is in no operand"):format(c)) end
    end
  else
    for c, n in pairs(uses) do
      if n == 1 then result[#result + 1] = c end
    end
    table.sort(result)
  end
  return terms, result
end

--- Fills size (letter -> size) from the operands; raises if they disagree.
local function sizes_of(terms, tensors)
  local size = {}
  for i, letters in ipairs(terms) do
    local t = T.expect(tensors[i], ("einsum: operand %d"):format(i), "f32")
    if #letters ~= t:dim() then
      raise(("einsum: operand %d has %d letters, tensor %s has %d dimensions"):format(i, #letters, T.shape_text(t),
        t:dim()))
    end
    for d, c in ipairs(letters) do
      if size[c] and size[c] ~= t:size(d) then
        raise(("einsum: letter '%s' is %d in an operand before, %d in operand %d %s"):format(c, size[c], t:size(d), i,
          T.shape_text(t)))
      end
      size[c] = t:size(d)
    end
  end
  return size
end

local function set_of(list)
  local set = {}
  for _, c in ipairs(list) do set[c] = true end
  return set
end

--- Sums t over the letters that are not in keep; returns the sum and its letters.
local function sum_others(t, letters, keep)
  local left = {unpack(letters)}
  for d = #left, 1, -1 do
    if not keep[left[d]] then
      t = t:sum(d)
      table.remove(left, d)
    end
  end
  return t, left
end

--- Returns t with its dimensions in the order of the letters `to`.
local function ordered(t, letters, to)
  local at, order, same = {}, {}, true
  for d, c in ipairs(letters) do at[c] = d end
  for d, c in ipairs(to) do
    order[d] = at[c]
    same = same and order[d] == d
  end
  return same and t or t:permute(unpack(order))
end

local function joined(...)
  local all = {}
  for i = 1, select("#", ...) do
    for _, c in ipairs((select(i, ...))) do all[#all + 1] = c end
  end
  return all
end

--- Returns the product of a and b summed over the letters that are not in keep, and the product's letters.
local function product(a, la, b, lb, keep, size)
  local in_a, in_b = set_of(la), set_of(lb)
  local need_a, need_b = {}, {}
  for c in pairs(keep) do need_a[c], need_b[c] = true, true end
  for c in pairs(in_b) do need_a[c] = true end
  for c in pairs(in_a) do need_b[c] = true end
  a, la = sum_others(a, la, need_a)
  b, lb = sum_others(b, lb, need_b)
  local batch, summed, rows, columns = {}, {}, {}, {}
  for _, c in ipairs(la) do
    local list = not in_b[c] and rows or keep[c] and batch or summed
    list[#list + 1] = c
  end
  for _, c in ipairs(lb) do
    if not in_a[c] then columns[#columns + 1] = c end
  end
  local function count(list)
    local n = 1
    for _, c in ipairs(list) do n = n * size[c] end
    return n
  end
  local n, m, k, p = count(batch), count(rows), count(summed), count(columns)
  a = ordered(a, la, joined(batch, rows, summed)):reshape(n, m, k)
  b = ordered(b, lb, joined(batch, summed, columns)):reshape(n, k, p)
  local letters, shape = joined(batch, rows, columns), {}
  for d, c in ipairs(letters) do shape[d] = size[c] end
  return a:matmul(b):reshape(shape), letters
end

--- Returns the sum of products that an equation names: "ij,jk->ik" is a matrix product, "bij,bjk->bik" a batch of them,
--- "ij->ji" a transpose, "ij->i" a sum, "i,j->ij" an outer product, "i,i->" an inner one. A letter that is not in the
--- result is summed over. A letter may stand once in an operand (no diagonals); "..." is not supported. Three or more
--- tensors are multiplied from left to right.
---@param equation string
---@param ... atomo.Tensor  f32
---@return atomo.Tensor
---@usage atomo.einsum("ij,jk->ik", atomo.ones(2, 3), atomo.ones(3, 4)):get(1, 1) --> 3
function M.einsum(equation, ...)
  local tensors = {...}
  local terms, result = parse(equation, select("#", ...))
  local size = sizes_of(terms, tensors)
  local y, letters = tensors[1], terms[1]
  for i = 2, #terms do
    local keep = set_of(result)
    for j = i + 1, #terms do
      for _, c in ipairs(terms[j]) do keep[c] = true end
    end
    y, letters = product(y, letters, tensors[i], terms[i], keep, size)
  end
  y, letters = sum_others(y, letters, set_of(result))
  y = ordered(y, letters, result)
  return y == tensors[1] and y:clone() or y
end

return M
