-- Autograd: every operator against finite differences on odd shapes, rules of backward, a user-defined operator.
local atomo = require "atomo"

local r = atomo.randn
local function positive(...) return atomo.rand(...):add_(0.5) end

-- name, function, inputs. Inputs with kinks are chosen away from them.
local cases = {
  {"add", function(a, b) return a + b end, function() return r(3, 1, 5), r(7, 1) end},
  {"add number", function(a) return 3 + a + 2 end, function() return r(1) end},
  {"sub", function(a, b) return a - b end, function() return r(3, 1, 5), r(1) end},
  {"number sub", function(a) return 3 - a end, function() return r(2, 3) end},
  {"mul", function(a, b) return a * b end, function() return r(3, 1, 5), r(7, 1) end},
  {"mul by itself", function(a) return a * a + a end, function() return r(5, 3) end},
  {"div", function(a, b) return a / b end, function() return r(3, 1, 5), positive(7, 1) end},
  {"number div", function(a) return 2 / a end, function() return positive(3) end},
  {"div number", function(a) return a / 3 end, function() return r(3) end},
  {"neg", function(a) return -a end, function() return r(3) end},
  {"pow", function(a) return a ^ 3 end, function() return r(3, 5) end},
  {"number pow", function(a) return 2 ^ a end, function() return r(3, 5) end},
  {"tensor pow", function(a, b) return a ^ b end, function() return positive(3), r(3) end},
  {"maximum", function(a, b) return a:maximum(b) end,
    function() return atomo.tensor {1, 5, -2}, atomo.tensor {2, 3, -1} end},
  {"minimum", function(a) return a:minimum(2) end, function() return atomo.tensor {1, 5, -2} end},
  {"exp", function(a) return a:exp() end, function() return r(3, 5) end},
  {"log", function(a) return a:log() end, function() return positive(3, 5) end},
  {"sqrt", function(a) return a:sqrt() end, function() return positive(3, 5) end},
  {"abs", function(a) return a:abs() end, function() return atomo.tensor {1, -2, 0.5} end},
  {"square", function(a) return a:square() end, function() return r(7) end},
  {"reciprocal", function(a) return a:reciprocal() end, function() return positive(7) end},
  {"sin", function(a) return a:sin() end, function() return r(7) end},
  {"cos", function(a) return a:cos() end, function() return r(7) end},
  {"tanh", function(a) return a:tanh() end, function() return r(7) end},
  {"sigmoid", function(a) return a:sigmoid() end, function() return r(7) end},
  {"relu", function(a) return a:relu() end, function() return atomo.tensor {1, -2, 0.5} end},
  {"clamp", function(a) return a:clamp(-1, 1) end, function() return atomo.tensor {2, -3, 0.5} end},
  {"view", function(a) return a:view(5, 3) * a:view(-1, 3) end, function() return r(3, 5) end},
  {"transpose", function(a) return a:t() * a:transpose(1, 2) end, function() return r(3, 5) end},
  {"permute", function(a) return a:permute(3, 1, 2):reshape(-1) end, function() return r(2, 3, 5) end},
  {"narrow", function(a) return a:narrow(2, 2, 3) * a:narrow(2, 1, 3) end, function() return r(3, 5) end},
  {"select", function(a) return a:select(2, 2) * 3 end, function() return r(3, 5, 2) end},
  {"expand", function(a) return a:expand(4, 5, 3) * a end, function() return r(1, 3) end},
  {"squeeze", function(a) return a:squeeze() + a:unsqueeze(1):sum() end, function() return r(3, 1) end},
  {"clone", function(a) return a:clone() * a:t():contiguous():t() end, function() return r(3, 2) end},
  {"cat", function(a, b) return atomo.cat({a, b, a}, 2) end, function() return r(5, 3), r(5, 2) end},
  {"stack", function(a, b) return atomo.stack({a, b}) end, function() return r(5), r(5) end},
  {"index_select", function(a) return a:index_select(1, {3, 1, 3}) end, function() return r(5, 3) end},
  {"sum", function(a) return a:sum(1) + a:sum() + a:sum(2, true):sum() end, function() return r(5, 3) end},
  {"mean", function(a) return a:mean(2) * a:mean() end, function() return r(5, 3) end},
  {"max", function(a) return (a:max(2)) end, function() return atomo.tensor {{1, 5, 2}, {9, 3, 4}} end},
  {"min over an inner dimension", function(a) return (a:min(1)) + a:max() end,
    function() return atomo.tensor {{1, 5, 2}, {9, 3, 4}} end},
  {"dot", function(a, b) return a:dot(b) end, function() return r(7), r(7) end},
  {"norm", function(a) return a:norm() * a:norm(3) end, function() return r(5, 3) end},
  {"norm inf", function(a) return a:norm(math.huge) end, function() return atomo.tensor {1, -4, 2} end},
  {"matmul", function(a, b) return a:t():matmul(b) end, function() return r(5, 3), r(5, 2) end},
  {"matmul of one", function(a, b) return a:matmul(b) end, function() return r(1, 1), r(1, 1) end},
  {"matmul in batches", function(a, b) return a:matmul(b) end, function() return r(2, 5, 3), r(2, 3, 2) end},
  {"matrix by vector", function(a, b) return a:matmul(b) end, function() return r(5, 3), r(3) end},
}

describe("gradients", function()
  for _, case in ipairs(cases) do
    it("of " .. case[1] .. " agree with finite differences", function()
      atomo.manual_seed(7)
      local ok, worst = atomo.gradcheck(case[2], {case[3]()})
      assert.is_true(ok, ("worst relative error %g"):format(worst))
    end)
  end

  it("that are wrong are found", function()
    local wrong = atomo.func {
      name = "wrong", forward = function(_, x) return x * x end,
      backward = function(ctx, g) return g * ctx.args[1] end, -- the factor 2 is missing
    }
    local ok, worst = atomo.gradcheck(wrong, {r(5)})
    assert.is_false(ok)
    assert.is_true(worst > 0.4)
  end)
end)

describe("backward", function()
  it("adds to .grad and visits shared subgraphs once", function()
    local w = atomo.param {2, 3}
    local y = w * w
    local loss = (y + y * 2):sum()
    loss:backward()
    assert.same({12, 18}, w.grad:totable())
    local again = (w * 1):sum()
    again:backward()
    assert.same({13, 19}, w.grad:totable())
    w:zero_grad()
    assert.same({0, 0}, w.grad:totable())
  end)

  it("adds gradients in place that paths through convolutions and batch norm pass to one tensor", function()
    -- the same network twice: as it is, and with every use of h through an operator that copies, so nothing is in place
    local F = atomo.F
    local copy = atomo.func {name = "copy", forward = function(_, x) return x:clone() end,
      backward = function(_, gy) return gy:clone() end}
    local function gradients(use)
      atomo.manual_seed(21)
      local x, w = atomo.param(atomo.randn(2, 6, 6, 16)), atomo.param(atomo.randn(16, 3, 3, 16))
      local gamma, beta = atomo.param(atomo.rand(16)), atomo.param(atomo.randn(16))
      local function bn(t, residual)
        return F.batch_norm(t, gamma, beta, {training = true, relu = true, residual = residual})
      end
      local h = x * 2
      local y = bn(F.conv2d(use(h), w, nil, {padding = 1}), use(h))
      y = bn(F.conv2d(use(y), w, nil, {padding = 1}), use(h)) + use(y)
      y:backward(atomo.randn(2, 6, 6, 16))
      return {x.grad, w.grad, gamma.grad, beta.grad}
    end
    local plain, copied = gradients(function(t) return t end), gradients(copy)
    for i = 1, 4 do
      local worst = (plain[i] - copied[i]):abs():max():item() / copied[i]:abs():max():item()
      assert.is_true(worst < 1e-5, ("gradient %d is off by %g"):format(i, worst))
    end
  end)

  it("reports each parameter when its last use has been passed", function()
    local a, b, order = atomo.param {1}, atomo.param {1}, {}
    local y = (a * b) * b
    y:sum():backward(nil, {on_ready = function(p) order[#order + 1] = p == a and "a" or "b" end})
    table.sort(order)
    assert.same({"a", "b"}, order)
    assert.equal(2, b.grad:item())
  end)

  it("does not record under no_grad, also after an error", function()
    local w = atomo.param {1}
    assert.is_nil(atomo.no_grad(function() return w * 2 end).node)
    pcall(atomo.no_grad, function() error "x" end)
    assert.is_truthy((w * 2).node)
  end)

  local function message(fn)
    local ok, text = pcall(fn)
    assert.is_false(ok)
    return text
  end

  it("refuses a second pass, a change in place, a missing gradient", function()
    local w = atomo.param {1, 2}
    local y = (w * w):sum()
    y:backward()
    assert.matches("freed by an earlier backward", message(function() y:backward() end))
    local x = atomo.tensor {1, 2}
    local z = (w * x):sum()
    x:fill_(3)
    assert.matches("changed in place", message(function() z:backward() end))
    assert.matches("cannot be changed in place", message(function() w:add_(1) end))
    assert.matches("no scalar", message(function() (w * 2):backward() end))
    assert.matches("nothing that led", message(function() x:backward() end))
  end)

  it("frees its temporaries", function()
    local w = atomo.param(atomo.randn(100))
    local function step()
      atomo.scope(function()
        w:zero_grad()
        local loss = (w * 2 + w:exp()):square():mean()
        loss:backward()
      end)
    end
    for _ = 1, 3 do step() end
    local before
    repeat -- collects what earlier tests left
      before = atomo.mem()
      collectgarbage()
    until atomo.mem().live_blocks == before.live_blocks
    for _ = 1, 20 do step() end
    local after = atomo.mem()
    assert.equal(before.system_allocs, after.system_allocs)
    assert.is_true(after.live_blocks <= before.live_blocks) -- the collector may find more
  end)
end)

describe("a user's operator", function()
  it("takes plain values, several results and reports its mistakes", function()
    local split = atomo.func {
      name = "halves",
      forward = function(ctx, x, scale)
        local n = x:size(1) / 2
        return x:narrow(1, 1, n) * scale, x:narrow(1, n + 1, n) * scale
      end,
      backward = function(ctx, ga, gb)
        local n = ctx.args[1]:size(1) / 2
        return atomo.cat({ga or atomo.zeros(n), gb or atomo.zeros(n)}, 1) * ctx.args[2]
      end,
    }
    assert.is_true((atomo.gradcheck(function(x) return split(x, 3) end, {r(6)})))
    assert.is_true((atomo.gradcheck(function(x) return (split(x, 3)) end, {r(6)})))
    local bad = atomo.func {name = "bad", forward = function(_, x) return x * 2 end,
      backward = function() return atomo.ones(3) end}
    local ok, text = pcall(function() bad(atomo.param {1, 2}):sum():backward() end)
    assert.is_false(ok)
    assert.matches("bad: backward returned a gradient %[3%] for argument 1, which is %[2%]", text)
    local many = atomo.func {name = "many", forward = function(_, x) return x * 2 end,
      backward = function(_, g) return g, nil, nil, nil, nil, g end}
    ok, text = pcall(function() many(atomo.param {1, 2}):sum():backward() end)
    assert.is_false(ok)
    assert.matches("many: backward returned a gradient for argument 6, forward took 1", text)
  end)
end)

describe("a decomposition of a tensor that requires a gradient", function()
  for _, name in ipairs {"svd", "eigh", "qr"} do
    it("raises in backward, in place of losing its part of the gradient: " .. name, function()
      local w = atomo.param {{2, 0}, {0, 1}}
      local first, second = atomo[name](w * 1)
      local loss = (w * w):sum() + second:sum()
      local ok, text = pcall(loss.backward, loss)
      assert.is_false(ok)
      assert.matches(name .. ": it has no gradient; where none is wanted, pass it t:detach%(%)", text)
      assert.is_nil(w.grad)
      local plain = {atomo[name](w:detach())}
      assert.same(plain[1]:totable(), first:totable())
      assert.is_nil(plain[1].requires_grad)
      assert.is_nil(atomo.no_grad(atomo[name], w).requires_grad)
      ;(w * 3):sum():backward() -- the results may be looked at
      assert.equal(3, w.grad:get(1, 2))
    end)
  end
end)
