--- The cases of tests/golden/edges.lua as tensors, and the comparison of results with them: NaN and Inf exactly, other
-- numbers within a number of ulp (units in the last place of f32, at least those of subnormal numbers) or an absolute
-- bound.
local atomo = require "atomo"

local M = {}

local special = {inf = math.huge, ["-inf"] = -math.huge, nan = 0 / 0}

--- Converts {shape =, data = "1 inf nan", dtype =} to a tensor.
local function read(g)
  local t = atomo.empty(g.shape, g.dtype)
  local p, i = t:data(), 0
  for word in g.data:gmatch "%S+" do
    p[i] = special[word] or tonumber(word)
    i = i + 1
  end
  assert(i == t:numel(), "golden data of another length")
  return t
end

--- Returns all cases: {name =, inputs =, result =, gradients = (false for an input without)}.
function M.cases()
  local list = {}
  for i, c in ipairs(dofile "tests/golden/edges.lua") do
    local inputs, gradients = {}, nil
    for k, x in ipairs(c.x) do inputs[k] = read(x) end
    if c.g then
      gradients = {}
      for k, g in ipairs(c.g) do gradients[k] = g and read(g) end
    end
    list[i] = {name = c.name, inputs = inputs, result = read(c.y), gradients = gradients}
  end
  return list
end

--- Returns the gradient from which backward starts: 1, 1.5, 2, 2.5, 3, 1, ... in the shape of t.
function M.seed(t)
  local g = atomo.empty(t:shape())
  local p = g:data()
  for i = 0, g:numel() - 1 do p[i] = 1 + i % 5 / 2 end
  return g
end

--- Returns the result of fn and the gradients of the f32 inputs. look: applied to the leaves before fn gets them.
function M.run(fn, inputs, backward, look)
  local leaves, seen = {}, {}
  for i, x in ipairs(inputs) do
    local grad = backward and x:dtype() == "f32"
    leaves[i] = grad and atomo.param(x:clone()) or x
    seen[i] = look and look(leaves[i]) or leaves[i]
  end
  local y = fn(unpack(seen))
  local gradients = {}
  if backward then
    y:backward(M.seed(y))
    for i, leaf in ipairs(leaves) do gradients[i] = leaf.grad or false end
  end
  return y:detach(), gradients
end

local function ulp_of(v)
  if v == 0 then return 2 ^ -149 end
  local _, e = math.frexp(v)
  return 2 ^ math.max(e - 24, -149)
end

--- Returns |a - b| in ulp of b; 0 if it is at most `abs`; Inf if only one of them is NaN or the same infinity.
local function apart(a, b, abs)
  if a ~= a or b ~= b then return (a ~= a) == (b ~= b) and 0 or math.huge end
  if a == b or math.abs(a - b) <= abs then return 0 end
  if math.abs(a) == math.huge or math.abs(b) == math.huge then return math.huge end
  return math.abs(a - b) / ulp_of(b)
end

--- Returns nil if got agrees with want, else a text about the first element that does not.
function M.difference(got, want, ulp, abs)
  local a, b = got:shape(), want:shape()
  if got:dtype() ~= want:dtype() or table.concat(a, ",") ~= table.concat(b, ",") then
    return ("%s [%s], expected %s [%s]"):format(got:dtype(), table.concat(a, ","), want:dtype(), table.concat(b, ","))
  end
  local p, q = got:contiguous():data(), want:contiguous():data()
  for i = 0, want:numel() - 1 do
    local far = apart(p[i], q[i], abs or 0)
    if far > (ulp or 0) then
      return ("element %d is %.9g, expected %.9g (%.3g ulp)"):format(i + 1, p[i], q[i], far)
    end
  end
end

return M
