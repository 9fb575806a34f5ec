-- Random programs for the tape, run both on tensors and on the reference scalar_graph.lua: operators with broadcasting,
-- views, in-place changes (recorded, under no_grad, through detached aliases), shared parameters, user-defined
-- operators that return gradients owned by others, errors in forward and backward, coroutines that leave no_grad or a
-- scope open, retained graphs and repeated backward.
local atomo = require "atomo"
local R = require "support.scalar_graph"

local M = {}

--- Returns a separate random generator, so that a program depends only on its seed.
local function generator(seed)
  local state = (seed * 7919 + 12345) % 2147483647
  return function(n)
    state = state * 16807 % 2147483647
    return state % n + 1
  end
end

-- ---- operators: {tape, reference, reads}; reads(a needs, b needs) names what backward reads: "a", "b", "y" ---------

local unaries = {
  {function(t) return t:tanh() end, function(x) local y = math.tanh(x) return y, 1 - y * y end, "y"},
  {function(t) return t:sigmoid() end, function(x) local y = 1 / (1 + math.exp(-x)) return y, y * (1 - y) end, "y"},
  {function(t) return t:sin() end, function(x) return math.sin(x), math.cos(x) end, "a"},
  {function(t) return -t end, function(x) return -x, -1 end, ""},
  {function(t) return t * 0.5 + 0.25 end, function(x) return x * 0.5 + 0.25, 0.5 end, ""},
  {function(t) return t:clone() end, function(x) return x, 1 end, ""},
  {function(t) return atomo.F.tanh(t) end, function(x) local y = math.tanh(x) return y, 1 - y * y end, "y"},
}

local function add(x, y) return x + y, 1, 1 end
local function sub(x, y) return x - y, 1, -1 end
local function mul(x, y) return x * y, y, x end

local binaries = {
  {function(a, b) return a + b end, add, function() return "" end},
  {function(a, b) return a - b end, sub, function() return "" end},
  {function(a, b) return a * b end, mul, function(a, b) return (b and "a" or "") .. (a and "b" or "") end},
}

-- User-defined operators. Their gradients are correct, but are tensors that others hold, too.
local kept_list = {} -- what their backward has returned in this program, with its elements then
local function kept(t)
  kept_list[#kept_list + 1] = {t, t:contiguous():bytes()}
  return t
end

local users = {
  {atomo.func {name = "passes_gy", forward = function(_, x) return x * 1 end,
    backward = function(_, g) return kept(g) end}, function(x) return x, 1 end, ""},
  {atomo.func {name = "square_in_ctx", forward = function(ctx, x)
    ctx.x = x
    return x * x * 0.5
  end, backward = function(ctx, g) return kept(g * ctx.x) end}, function(x) return x * x * 0.5, x end, "a"},
  {atomo.func {name = "square_of_args", forward = function(_, x) return x * x * 0.5 end,
    backward = function(ctx, g) return kept(g * ctx.args[1]) end}, function(x) return x * x * 0.5, x end, "a"},
  {atomo.func {name = "changes_gy", forward = function(_, x) return x * 3 end,
    backward = function(_, g) return kept(g:mul_(3)) end}, function(x) return x * 3, 3 end, ""},
  {atomo.func {name = "result_saved", forward = function(ctx, x)
    local y = x:tanh()
    ctx:save(y)
    return y
  end, backward = function(ctx, g)
    local y = ctx:saved()
    return g * (1 - y * y)
  end}, function(x) local y = math.tanh(x) return y, 1 - y * y end, "y"},
  {atomo.func {name = "view_of_gy", forward = function(_, x) return x * 1 end,
    backward = function(_, g) return kept(g:view(-1):view(g:shape())) end}, function(x) return x, 1 end, ""},
  {atomo.func {name = "one_for_both", forward = function(_, x, y) return x + y end, backward = function(_, g)
    local same = kept(g * 1)
    return same, same
  end}, add, "", true},
}

local fails = false
local fragile = atomo.func {name = "fragile", forward = function(_, x) return x * 1 end, backward = function(_, g)
  if fails then error "on purpose" end
  return g
end}

-- in place: {method and arguments, reference}
local changes = {
  {function(t, u) t:add_(u) end, add}, {function(t, u) t:sub_(u) end, sub},
  {function(t, u) t:mul_(u) end, mul, true}, {function(t, u) t:copy_(u) end, function(_, y) return y, 0, 1 end},
  {function(t, u) t:axpy_(-0.5, u) end, function(x, y) return x - 0.5 * y, 1, -0.5 end},
}
local plain_changes = {
  {function(t) t:tanh_() end, function(x) local y = math.tanh(x) return y, 1 - y * y end},
  {function(t) t:fill_(0.5) end, function() return 0.5, 0 end},
  {function(t) t:zero_() end, function() return 0, 0 end},
  {function(t) t:mul_(0.5) end, function(x) return x * 0.5, 0.5 end},
  {function(t) t:neg_() end, function(x) return -x, -1 end},
}

-- ---- a program -----------------------------------------------------------------------------------------------------

---@class Program  pairs: {t = tensor, r = reference, leaf =, expanded =}; reads: what operators will read in backward
local Program = {}
Program.__index = Program

function Program:add(t, r, more)
  local pair = more or {}
  pair.t, pair.r = t, r
  self.pairs[#self.pairs + 1] = pair
  return pair
end

--- Returns a random tensor for which suits(pair) is true; after some tries the first parameter, if it suits.
function Program:pick(suits)
  for _ = 1, 20 do
    local pair = self.pairs[self.random(#self.pairs)]
    if not suits or suits(pair) then return pair end
  end
  return (not suits or suits(self.pairs[1])) and self.pairs[1] or nil
end

--- Records which tensors the backward of a recorded operator reads.
function Program:note(t, reads, a, b, y)
  if not t.requires_grad then return end
  local by_name = {a = a, b = b, y = y}
  for name in reads:gmatch "." do
    local r = by_name[name]
    self.reads[#self.reads + 1] = {storage = r.storage, changes = r.storage.changes}
  end
end

--- Has a tensor changed that the backward of an operator reads?
function Program:has_conflict()
  for _, read in ipairs(self.reads) do
    if read.storage.changes ~= read.changes then return true end
  end
  return false
end

--- Returns the shape to which a and b broadcast, or nil.
local function joined(a, b)
  local shape, n = {}, math.max(#a, #b)
  for i = 1, n do
    local x, y = a[#a - n + i] or 1, b[#b - n + i] or 1
    if x ~= y and x ~= 1 and y ~= 1 then return nil end
    shape[i] = math.max(x, y)
  end
  return shape
end

local function fits_into(shape, target)
  local all = joined(shape, target)
  return all and table.concat(all, ",") == table.concat(target, ",")
end

local steps = {}

function steps.unary(self)
  local p, op = self:pick(), unaries[self.random(#unaries)]
  local t, r = op[1](p.t), R.map(op[2], p.r)
  self:note(t, op[3], p.r, nil, r)
  self:add(t, r)
end

--- Does the tape record an operator on this tensor?
local function needs(pair) return (pair.t + 0).requires_grad end

function steps.binary(self)
  local p, q = self:pick(), self:pick()
  local shape = joined(p.r.shape, q.r.shape)
  if not shape then return end
  local op = binaries[self.random(#binaries)]
  local t, r = op[1](p.t, q.t), R.map(op[2], p.r, q.r, shape)
  self:note(t, op[3](needs(p), needs(q)), p.r, q.r, r)
  self:add(t, r)
end

function steps.user(self)
  local p, op = self:pick(), users[self.random(#users)]
  local q = op[4] and p or nil
  local t, r = op[1](p.t, q and q.t), R.map(op[2], p.r, q and q.r)
  self:note(t, op[3], p.r, q and q.r, r)
  self:add(t, r)
end

function steps.view(self)
  local p = self:pick()
  local shape, kind = p.r.shape, self.random(4)
  local more = {leaf = p.leaf, expanded = p.expanded}
  if kind == 1 and #shape == 2 then
    local n, m = shape[1], shape[2]
    self:add(p.t:t(), R.view(p.r, {m, n}, function(i) return (i - 1) % n * m + math.floor((i - 1) / n) + 1 end), more)
  elseif kind == 2 and #shape >= 1 and shape[1] > 1 then
    local start = self.random(shape[1] - 1)
    local length = self.random(shape[1] - start)
    local row = R.product(shape) / shape[1]
    local sizes = {length, shape[2]}
    self:add(p.t:narrow(1, start, length), R.view(p.r, sizes, function(i) return i + (start - 1) * row end), more)
  elseif kind == 3 and #shape == 2 then
    local k = self.random(shape[2])
    self:add(p.t:select(2, k), R.view(p.r, {shape[1]}, function(i) return (i - 1) * shape[2] + k end), more)
  elseif kind == 4 and #shape == 1 then
    more.expanded = true
    self:add(p.t:expand(2, shape[1]), R.view(p.r, {2, shape[1]}, function(i) return (i - 1) % shape[1] + 1 end), more)
  end
end

local function can_change(pair) return not pair.expanded and not pair.leaf end

function steps.change(self)
  local p = self:pick(can_change)
  if not p then return end
  if self.random(2) == 1 then
    local op = plain_changes[self.random(#plain_changes)]
    local r = R.map(op[2], p.r)
    op[1](p.t)
    R.assign(p.r, r)
    return
  end
  local q, op = self:pick(), changes[self.random(#changes)]
  if not fits_into(q.r.shape, p.r.shape) or q.r.storage == p.r.storage and p.r.detached then return end
  local r, reads = R.map(op[2], p.r, q.r), op[3] and needs(p) and q.r.storage ~= p.r.storage
  op[1](p.t, q.t)
  if reads and p.t.requires_grad then
    self.reads[#self.reads + 1] = {storage = q.r.storage, changes = q.r.storage.changes}
  end
  R.assign(p.r, r)
end

--- In-place changes that must be refused while recording: of parameters and views of them.
function steps.refused(self)
  local p = self:pick(function(pair) return pair.leaf and not pair.expanded end)
  local ok, text = pcall(p.t.add_, p.t, 1)
  assert(not ok and text:find "cannot be changed in place", text)
end

function steps.no_grad(self)
  local p = self:pick(function(pair) return not pair.expanded end)
  local r = R.map(function(x) return x * 0.5 + 0.1, 0 end, p.r)
  atomo.no_grad(function() p.t:mul_(0.5):add_(0.1) end)
  R.assign_silently(p.r, r)
  p.r.storage.changes = p.r.storage.changes + 1
end

function steps.constant(self)
  local p = self:pick()
  self:add(atomo.no_grad(function() return p.t * 2 end),
    R.constant(p.r.shape, R.values(R.map(function(x) return x * 2 end, p.r))))
end

--- Adds a detached alias: it has the same values, and the graph does not see changes through it.
function steps.detached(self)
  local p = self:pick(function(pair) return not pair.expanded end)
  local alias = p.t:detach()
  alias:mul_(0.75)
  R.assign_silently(p.r, R.map(function(x) return x * 0.75, 0 end, p.r))
end

--- Adds a copy of a detached alias, which is a constant.
function steps.alias(self)
  local p = self:pick()
  self:add(p.t:detach():clone(), R.constant(p.r.shape, R.values(p.r)))
end

function steps.error(self)
  local p = self:pick()
  pcall(atomo.no_grad, function() error "on purpose" end)
  pcall(atomo.scope, function() return p.t:tanh():matmul(5) end)
end

--- Starts a coroutine that yields inside no_grad or a scope, for some steps or for ever.
function steps.coroutine(self)
  local co = coroutine.wrap(function()
    local enter = self.random(2) == 1 and atomo.no_grad or atomo.scope
    enter(function()
      for _ = 1, 3 do
        assert(atomo.ones(1):item() == 1)
        coroutine.yield()
      end
    end)
  end)
  co()
  self.open[#self.open + 1] = co
end

function steps.resume(self)
  local co = table.remove(self.open, #self.open)
  if co then co() end
end

-- ---- backward ------------------------------------------------------------------------------------------------------

--- Adds the reference's gradients to the expected sums of the leaves.
local function reference_backward(self, root)
  local slope = R.slopes(root)
  for _, leaf in ipairs(self.leaves) do
    for i, node in ipairs(leaf.nodes) do leaf.grad[i] = leaf.grad[i] + (slope[node] or 0) end
  end
end

local function check_gradients(self, what)
  for k, leaf in ipairs(self.leaves) do
    local got = leaf.t.grad and leaf.t.grad:view(-1):totable() or {}
    local scale = 1
    for _, g in ipairs(leaf.grad) do scale = math.max(scale, math.abs(g)) end
    for i, g in ipairs(leaf.grad) do
      local off = math.abs((got[i] or 0) - g) / scale
      if off ~= off or off >= 2e-3 then
        error(("%s: gradient %d of parameter %d is %g, the reference has %g"):format(what, i, k, got[i] or 0, g), 0)
      end
    end
  end
end

--- Runs backward from the sum of some tensors and compares gradients. Returns "compared", "conflict" (a needed tensor
--- had changed) or "constant".
local function backward(self, count)
  local tensors, references, weights = {}, {}, {}
  for k = 1, count do
    local p = self:pick(k == 1 and function(pair) return pair.t.requires_grad end or nil)
    tensors[k], references[k], weights[k] = p.t, p.r, 0.25 * self.random(8)
  end
  local loss
  for k, t in ipairs(tensors) do
    local part = t:sum() * weights[k]
    loss = loss and loss + part or part
  end
  loss = fragile(loss)
  if not loss.requires_grad then return "constant" end
  local root = R.total(references, weights)
  for i = 1, self.random(2) do
    if self.random(4) == 1 then -- first a backward that fails, in half of the cases after some nodes
      local late = self.random(2) == 1 and fragile(self.leaves[1].t * 1):sum() or nil
      local failing = late and late + loss:detach() or loss
      fails = true
      local ok = pcall(failing.backward, failing, nil, {retain_graph = true})
      fails = false
      assert(not ok)
      check_gradients(self, "after a failure")
    end
    local ok, text = pcall(loss.backward, loss, nil, {retain_graph = true})
    if not ok then
      if tostring(text):find("changed in place", 1, true) and self:has_conflict() then
        check_gradients(self, "after a conflict")
        return "conflict"
      end
      error(text, 0)
    end
    reference_backward(self, root)
    check_gradients(self, "backward " .. i)
  end
  return "compared"
end

local names = {"unary", "unary", "binary", "binary", "binary", "user", "user", "view", "view", "view", "change",
  "change", "change", "refused", "no_grad", "constant", "detached", "alias", "error", "coroutine", "resume"}
local calm = {no_grad = true, detached = true}

--- Runs the program of a seed; raises if the tape and the reference differ. counts: outcome -> how often.
function M.run(seed, counts)
  kept_list = {}
  local self = setmetatable({pairs = {}, reads = {}, leaves = {}, open = {}, random = generator(seed)}, Program)
  local function tensor(shape)
    local values = {}
    for i = 1, R.product(shape) do values[i] = (self.random(2001) - 1001) / 1000 end
    return atomo.tensor(values):view(shape), R.constant(shape, values)
  end
  for _, shape in ipairs {{2, 3}, {3}} do
    local t, r = tensor(shape)
    atomo.param(t)
    local nodes, grad = {}, {}
    for i, node in ipairs(r.storage.nodes) do nodes[i], grad[i] = node, 0 end
    self.leaves[#self.leaves + 1] = {t = t, nodes = nodes, grad = grad}
    self:add(t, r, {leaf = true})
  end
  for _, shape in ipairs {{2, 3}, {3, 2}} do self:add(tensor(shape)) end
  local silent = self.random(3) == 1 -- a third of the programs have changes that the graph does not see
  for _ = 1, 8 + self.random(12) do
    local name = names[self.random(#names)]
    if silent or not calm[name] then steps[name](self) end
    if self.random(12) == 1 then
      local outcome = backward(self, 2)
      counts[outcome] = (counts[outcome] or 0) + 1
    end
  end
  local outcome = backward(self, 3)
  counts[outcome] = (counts[outcome] or 0) + 1
  for _, entry in ipairs(kept_list) do
    if entry[1]:contiguous():bytes() ~= entry[2] then error("a gradient that a user's backward kept has changed", 0) end
  end
  for k, p in ipairs(self.pairs) do
    local got, values = p.t:detach():contiguous():view(-1):totable(), R.values(p.r)
    for i, v in ipairs(values) do
      local off = math.abs(got[i] - v) / math.max(1, math.abs(v))
      if off ~= off or off > 2e-4 then
        error(("element %d of tensor %d is %g, the reference has %g"):format(i, k, got[i], v), 0)
      end
    end
  end
end

return M
