-- A reference implementation of autograd: the elements of a tensor are nodes of a graph of scalars, in double
-- precision. A view is a list of positions in a storage; an in-place change stores other nodes there. Views, aliases
-- and overlaps are then correct without versions, bases or rules.
local M = {}

local count = 0

--- Makes a scalar that depends on a (with derivative da) and on b (with db).
local function scalar(value, a, da, b, db)
  count = count + 1
  return {value = value, a = a, da = da, b = b, db = db, id = count}
end

local function product(shape)
  local n = 1
  for _, s in ipairs(shape) do n = n * s end
  return n
end
M.product = product

--- Makes a tensor with a new storage.
local function fresh(shape, nodes)
  local places = {}
  for i = 1, #nodes do places[i] = i end
  return {shape = shape, storage = {nodes = nodes, changes = 0}, places = places}
end

function M.constant(shape, values)
  local nodes = {}
  for i = 1, product(shape) do nodes[i] = scalar(values[i]) end
  return fresh(shape, nodes)
end

--- Makes a view: the elements at positions pick, in another shape. detached: without their dependencies.
function M.view(t, shape, pick, detached)
  local places = {}
  for i = 1, product(shape) do places[i] = t.places[pick and pick(i) or i] end
  return {shape = shape, storage = t.storage, places = places, detached = detached or t.detached}
end

local function read(t, i)
  local node = t.storage.nodes[t.places[i]]
  if t.detached then return scalar(node.value) end
  return node
end

--- Returns for every element of `shape` the element of t that is broadcast to it.
local function spread(t, shape)
  local map, skip = {}, #shape - #t.shape
  for i = 1, product(shape) do
    local rest, at, step = i - 1, 0, 1
    for d = #shape, 1, -1 do
      local k = rest % shape[d]
      rest = (rest - k) / shape[d]
      local size = d > skip and t.shape[d - skip] or 1
      if size > 1 then at = at + k * step end
      step = step * size
    end
    map[i] = at + 1
  end
  return map
end

--- Applies fn(a, b), which returns the value and the derivatives by a and b. b: a tensor, a number or nil. Returns a
--- new tensor in `shape`, default a's.
function M.map(fn, a, b, shape)
  shape = shape or a.shape
  local from_a, from_b = spread(a, shape), type(b) == "table" and spread(b, shape)
  local nodes = {}
  for i = 1, product(shape) do
    local x, y = read(a, from_a[i]), from_b and read(b, from_b[i]) or nil
    local value, dx, dy = fn(x.value, y and y.value or b)
    nodes[i] = scalar(value, x, dx, y, dy)
  end
  return fresh(shape, nodes)
end

--- Stores the elements of u in t, as a recorded in-place change.
function M.assign(t, u)
  local from = spread(u, t.shape)
  local nodes = {}
  for i = 1, #t.places do nodes[i] = read(u, from[i]) end
  for i, place in ipairs(t.places) do t.storage.nodes[place] = nodes[i] end
  t.storage.changes = t.storage.changes + 1
end

--- Changes t's values without recording: their dependencies stay the same.
function M.assign_silently(t, u)
  local from = spread(u, t.shape)
  local values = {}
  for i = 1, #t.places do values[i] = read(u, from[i]).value end
  for i, place in ipairs(t.places) do
    t.storage.nodes[place] = scalar(values[i], t.storage.nodes[place], 1)
  end
  t.storage.changes = t.storage.changes + 1
end

function M.values(t)
  local v = {}
  for i = 1, #t.places do v[i] = read(t, i).value end
  return v
end

--- Returns the weighted sum of the elements of several tensors as one scalar.
function M.total(tensors, weights)
  local sum = scalar(0)
  for k, t in ipairs(tensors) do
    for i = 1, #t.places do
      local x = read(t, i)
      sum = scalar(sum.value + weights[k] * x.value, sum, 1, x, weights[k])
    end
  end
  return sum
end

--- Returns node -> derivative of root with respect to it.
function M.slopes(root)
  local nodes, met, stack = {}, {[root] = true}, {root}
  while #stack > 0 do
    local node = table.remove(stack)
    nodes[#nodes + 1] = node
    for _, from in ipairs {node.a or node.b, node.b} do
      if not met[from] then
        met[from] = true
        stack[#stack + 1] = from
      end
    end
  end
  table.sort(nodes, function(x, y) return x.id > y.id end)
  local slope = {[root] = 1}
  for _, node in ipairs(nodes) do
    local g = slope[node] or 0
    if node.a then slope[node.a] = (slope[node.a] or 0) + g * node.da end
    if node.b then slope[node.b] = (slope[node.b] or 0) + g * (node.db or 0) end
  end
  return slope
end

return M
