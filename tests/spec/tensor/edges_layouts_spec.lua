-- The cases of edges_golden_spec once more in every layout that a tensor can have, and of the elementwise functions at
-- every length: bit-identical to the contiguous case, forward and gradient.
-- test: slow
local atomo = require "atomo"
local edges = require "support.edges"
local rows = require "support.edge_rows"

--- Returns the same elements with the order of dimensions in memory reversed.
local function turned(t)
  local order = {}
  for d = 1, t:dim() do order[d] = t:dim() + 1 - d end
  return t:permute(unpack(order)):contiguous():permute(unpack(order))
end

--- Returns the same elements as the middle of a larger tensor of NaN (integers: of a value that is no valid index).
local function cut(t)
  local sizes = t:shape()
  for d = 1, #sizes do sizes[d] = sizes[d] + 2 end
  local wide = atomo.full(sizes, t:dtype() == "f32" and 0 / 0 or 99, t:dtype())
  for d = 1, #sizes do wide = wide:narrow(d, 2, t:size(d)) end
  return atomo.no_grad(function() return wide:copy_(t) end)
end

--- Returns the same elements as every second element of the last dimension.
local function skipping(t)
  local sizes = t:shape()
  sizes[#sizes + 1] = 2
  local wide = atomo.full(sizes, 77, t:dtype()):select(#sizes, 1)
  return wide:copy_(t)
end

local layouts = {turned = turned, cut = cut, skipping = skipping}

--- Runs fn on leaves with that layout; returns result and gradients.
local function run(fn, inputs, backward, layout)
  local leaves = {}
  for i, x in ipairs(inputs) do leaves[i] = x:dim() > 0 and layout(x) or x end
  local params, gradients = {}, {}
  for i, x in ipairs(leaves) do params[i] = backward and x:dtype() == "f32" and atomo.param(x:detach()) or x end
  local y = fn(unpack(params))
  if backward then
    y:backward(layout(edges.seed(y)))
    for i, p in ipairs(params) do gradients[i] = p.grad or false end
  end
  return y:detach(), gradients
end

describe("in every layout, the same bits:", function()
  local cases = edges.cases()
  for name, layout in pairs(layouts) do
    it(name, function()
      local wrong = {}
      for _, case in ipairs(cases) do
        local row, backward = rows.of(case.name), case.gradients ~= nil
        local y, g = edges.run(row.fn, case.inputs, backward)
        local ok, y2, g2 = pcall(run, row.fn, case.inputs, backward, layout)
        if not ok then
          wrong[#wrong + 1] = case.name .. ": " .. y2
        else
          wrong[#wrong + 1] = edges.difference(y2, y, row.reordered) and case.name
          for i in ipairs(g) do
            if g[i] and edges.difference(g2[i], g[i], row.reordered) then
              wrong[#wrong + 1] = case.name .. " gradient " .. i
            end
          end
        end
      end
      assert.equal("", table.concat(wrong, "\n"))
    end)
  end

  it("expanded: a stride of 0 for the first dimension", function()
    for _, case in ipairs(cases) do
      local row, inputs = rows.of(case.name), {}
      local x = case.inputs[1]
      if x:dim() > 0 and x:size(1) > 1 and x:dtype() == "f32" then
        local wide = x:narrow(1, 1, 1):expand(x:shape())
        for i = 2, #case.inputs do inputs[i] = case.inputs[i] end
        inputs[1] = wide
        local got = row.fn(unpack(inputs))
        inputs[1] = wide:contiguous()
        assert.is_nil(edges.difference(got, row.fn(unpack(inputs)), row.reordered or 0), case.name)
      end
    end
  end)
end)

describe("at every length, the same bits:", function()
  local lengths = {}
  for n = 1, 40 do lengths[n] = n end
  lengths[#lengths + 1] = 16384 + 3
  lengths[#lengths + 1] = 1000003 -- several threads, pieces and a tail

  --- n elements: those of t over and over.
  local function tiled(t, n)
    local flat = t:reshape(1, -1)
    local times = math.ceil(n / flat:size(2))
    return flat:expand(times, flat:size(2)):reshape(-1):narrow(1, 1, n)
  end

  for _, case in ipairs(edges.cases()) do
    local row = rows.of(case.name)
    if row.elementwise then
      it(case.name, function()
        local inputs = {}
        for i, x in ipairs(case.inputs) do inputs[i] = x:expand(case.result:shape()):reshape(-1) end
        local backward = case.gradients ~= nil
        local function passed(list, n)
          local parts, leaves, gradients = {}, {}, {}
          for i, x in ipairs(list) do
            parts[i] = tiled(x, n)
            leaves[i] = backward and atomo.param(parts[i]:contiguous():detach()) or parts[i]
          end
          local y = row.fn(unpack(leaves))
          if backward then
            y:backward(atomo.ones(n))
            for i, p in ipairs(leaves) do gradients[i] = p.grad end
          end
          return y:detach(), gradients
        end
        local period = inputs[1]:numel()
        local one, g1 = passed(inputs, period)
        for _, n in ipairs(lengths) do
          local y, g = passed(inputs, n)
          assert.is_nil(edges.difference(y, tiled(one, n)), n)
          for i in ipairs(g) do assert.is_nil(edges.difference(g[i], tiled(g1[i], n)), n) end
        end
      end)
    end
  end
end)
