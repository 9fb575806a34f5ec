-- F.linear_cross_entropy: equal to F.linear and F.cross_entropy, in blocks of rows, in less memory than the logits'.
local atomo = require "atomo"
local F = atomo.F

--- Loss, accuracy, gradients of the one operator (fused) or of the two.
local function both(x, w, b, labels, opts, scale)
  local results = {}
  for i = 1, 2 do
    local px, pw, pb = atomo.param(x:clone()), atomo.param(w:clone()), b and atomo.param(b:clone())
    local o = {}
    for name, v in pairs(opts or {}) do o[name] = v end
    local loss, accuracy
    if i == 1 then
      o.bias = pb
      loss, accuracy = F.linear_cross_entropy(px, pw, labels, o)
    else
      local logits = F.linear(px, pw, pb)
      loss, accuracy = F.cross_entropy(logits, labels, o), F.accuracy(logits, labels, {ignore_index = o.ignore_index})
    end
    local count = loss.count
    ;(loss * (scale or 1)):backward()
    results[i] = {loss = loss:item(), count = count, accuracy = accuracy, px.grad, pw.grad, pb and pb.grad or nil}
  end
  return results[1], results[2]
end

local function agree(fused, two, what, tolerance)
  tolerance = tolerance or 2e-6
  assert.is_true(math.abs(fused.loss - two.loss) <= tolerance * math.abs(two.loss), what)
  assert.equal(two.count, fused.count, what)
  assert.equal(two.accuracy, fused.accuracy, what)
  assert.equal(#two, #fused)
  for i, g in ipairs(two) do
    local far = (g - fused[i]):norm_value()
    local norm = g:norm_value()
    assert.is_true(far <= tolerance * norm, ("%s, gradient %d: %g of %g"):format(what, i, far, norm))
  end
end

local function some_labels(classes, ...)
  local t = atomo.zeros(..., "i32")
  local p = t:data()
  for i = 0, t:numel() - 1 do p[i] = (i * 7919 + 3) % classes end
  return t
end

describe("linear_cross_entropy", function()
  it("gives what linear and cross_entropy give at infinities and NaN", function()
    local inf, nan = math.huge, 0 / 0
    local w, label = atomo.tensor {{1, 0}, {0, 1}, {1, 1}}, atomo.tensor({2}, "i32")
    local function text(result)
      local parts = {tostring(result.loss)}
      for _, g in ipairs(result) do parts[#parts + 1] = table.concat(g:view(-1):totable(), " ") end
      return (table.concat(parts, ", "):gsub("%-nan", "nan"))
    end
    for _, case in ipairs {{{1, 2}, {0, -inf, 0}}, {{1, 2}, {0, 0, -inf}}, {{1, 2}, {-inf, -inf, -inf}},
        {{1, 2}, {0, 0, inf}}, {{1, 2}, {0, inf, 0}}, {{1, nan}, {0, 0, 0}}, {{1000, -1000}, {0, 0, 0}},
        {{3e38, 3e38}, {0, 0, 0}}} do
      for _, smooth in ipairs {0, 0.1, 1} do
        local fused, two = both(atomo.tensor {case[1]}, w, atomo.tensor(case[2]), label, {label_smoothing = smooth})
        assert.equal(text(two), text(fused))
      end
    end
  end)

  it("equals linear and cross_entropy", function()
    atomo.manual_seed(4)
    for _, c in ipairs {
      {{6, 5}, 9}, {{2, 3, 5}, 9, bias = true}, {{4, 33}, 17, opts = {reduction = "sum"}},
      {{8, 3}, 4, bias = true, opts = {ignore_index = 2, label_smoothing = 0.2}}, {{3, 2}, 1, opts = {}, scale = 3},
      {{5, 4}, 3, opts = {label_smoothing = 1}, scale = -0.25},
    } do
      local shape, classes = c[1], c[2]
      local lead = {unpack(shape, 1, #shape - 1)}
      local x, w = atomo.randn(shape), atomo.randn(classes, shape[#shape])
      local fused, two = both(x, w, c.bias and atomo.randn(classes), some_labels(classes, lead), c.opts, c.scale)
      agree(fused, two, table.concat(shape, " "))
    end
  end)

  it("equals them over several blocks of rows, the last one shorter", function()
    local classes = 300000 -- 27 rows in a block
    local x, w, b = atomo.randn(60, 3), atomo.randn(classes, 3), atomo.randn(classes)
    local fused, two = both(x, w, b, some_labels(classes, 60), {ignore_index = 3})
    agree(fused, two, "60 rows", 1e-5) -- of sums of 300000 terms in f32
  end)

  it("keeps large logits apart, and NaN", function()
    local x, w = atomo.tensor {{1e4, 0}, {-1e4, 1}}, atomo.tensor {{1, 0}, {0, 1}, {-1, 2}}
    agree(both(x, w, nil, atomo.tensor({1, 2}, "i32")))
    x:set(1, 1, 0 / 0)
    local loss = F.linear_cross_entropy(x, w, atomo.tensor({1, 2}, "i32"))
    assert.is_true(loss:item() ~= loss:item())
  end)

  it("counts ties and NaN as F.accuracy does: logits that are all equal are right for the first class only", function()
    local labels, w = atomo.tensor({0, 1, 2, 3, 0, 1, 2, 3}, "i32"), atomo.eye(4)
    local values = {0, 1, 0 / 0, -math.huge}
    atomo.manual_seed(8)
    for _ = 1, 40 do
      local x = atomo.empty(8, 4)
      for i = 0, 31 do x:data()[i] = values[math.random(4)] end
      local logits = F.linear(x, w) -- NaN in all of a row: 0 times NaN
      local _, accuracy = F.linear_cross_entropy(x, w, labels)
      assert.equal((F.accuracy(logits, labels)), accuracy)
      local single = x:narrow(2, 1, 1):contiguous() -- a tie of three, or of all
      _, accuracy = F.linear_cross_entropy(single, atomo.tensor {{1}, {1}, {0.5}, {1}}, labels)
      assert.equal((F.accuracy(F.linear(single, atomo.tensor {{1}, {1}, {0.5}, {1}}), labels)), accuracy)
    end
    local _, accuracy = F.linear_cross_entropy(atomo.ones(8, 4), atomo.zeros(4, 4), labels)
    assert.equal(0.25, accuracy)
  end)

  it("is 0 if all labels are ignored", function()
    local x, w = atomo.param(atomo.randn(2, 3)), atomo.param(atomo.randn(4, 3))
    local loss, accuracy = F.linear_cross_entropy(x, w, atomo.full({2}, -100):int())
    loss:backward()
    assert.same({0, 0, 0, 0, 0}, {loss:item(), accuracy, loss.count, x.grad:norm_value(), w.grad:norm_value()})
  end)

  it("adds up the gradients of a weight that is also the embedding's", function()
    local index, labels = atomo.tensor({0, 3, 1}, "i32"), atomo.tensor({3, 1, 2}, "i32")
    local function gradient(loss)
      local w = atomo.param(atomo.arange(12):view(4, 3) / 10)
      loss(F.embedding(index, w), w):backward()
      loss(F.embedding(index, w), w):backward() -- .grad is not zero now
      return w.grad
    end
    local fused = gradient(function(x, w) return (F.linear_cross_entropy(x, w, labels)) end)
    local two = gradient(function(x, w) return F.cross_entropy(F.linear(x, w), labels) end)
    assert.is_true((fused - two):norm_value() < 1e-6 * two:norm_value())
  end)

  it("has its gradient from forward: the weight may change afterwards, and the graph can be kept", function()
    local x, w = atomo.param(atomo.randn(3, 2)), atomo.param(atomo.randn(4, 2))
    local labels = atomo.tensor({3, 1, 2}, "i32")
    local loss = F.linear_cross_entropy(x, w, labels) * 2
    F.cross_entropy(F.linear(x, w), labels):backward()
    local expected = x.grad:clone()
    x:zero_grad()
    atomo.no_grad(function() w:mul_(3) end)
    loss:backward(nil, {retain_graph = true})
    loss:backward()
    assert.is_true((x.grad - expected * 4):norm_value() < 1e-5 * expected:norm_value())
  end)

  it("needs memory for a block of logits, not for all", function()
    local rows, classes, width = 2048, 32768, 8
    local x, w = atomo.param(atomo.randn(rows, width)), atomo.param(atomo.randn(classes, width))
    local labels = some_labels(classes, rows)
    collectgarbage()
    collectgarbage()
    local before = atomo.mem().live
    require("atomo.ffi").C.atomo_mem_reset_peak()
    atomo.scope(function() F.linear_cross_entropy(x, w, labels):backward() end)
    local peak, logits = atomo.mem().peak - before, 4 * rows * classes
    assert.is_true(peak < 0.2 * logits, ("%g of %g bytes"):format(peak, logits))
  end)

  it("makes no gradients where none is wanted", function()
    local x, w = atomo.randn(3, 2), atomo.param(atomo.randn(4, 2))
    local labels = atomo.tensor({3, 1, 2}, "i32")
    local plain = atomo.no_grad(F.linear_cross_entropy, x, w, labels)
    assert.is_falsy(plain.requires_grad)
    local loss = F.linear_cross_entropy(x, w, labels)
    assert.equal(loss:item(), plain:item())
    loss:backward()
    assert.is_nil(x.grad)
    assert.is_true(w.grad:norm_value() > 0)
  end)
end)
