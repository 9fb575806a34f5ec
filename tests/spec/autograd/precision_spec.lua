-- Matrix products in bf16: each operator gives what it gives in fp32 for operands that are rounded to bf16, forward and
-- backward; the backward has the precision of its forward; set_precision and autocast, their errors and coroutines.
local atomo = require "atomo"
local autograd = require "atomo.autograd"
local ffi = require "ffi"
local gradients = require "support.gradients"
local precision = require "atomo.autograd.precision"
local shell = require "support.shell"
local spawn = require "support.spawn"
local F = atomo.F
local randn = atomo.randn

local bits_of = ffi.new "union { float f; uint32_t u; }[1]"

--- Returns x rounded to bf16, computed apart from the runtime: to nearest, ties to even.
local function nearest(x)
  bits_of[0].f = x
  local u = bits_of[0].u
  if x ~= x then return x end
  local low = u % 2 ^ 16
  u = u - low
  if low > 2 ^ 15 or low == 2 ^ 15 and (u / 2 ^ 16) % 2 == 1 then u = u + 2 ^ 16 end
  bits_of[0].u = u
  return bits_of[0].f
end

--- Returns a copy of t, rounded.
local function rounded(t)
  local r = t:detach():contiguous():clone()
  local p = r:data()
  for i = 0, r:numel() - 1 do p[i] = nearest(p[i]) end
  return r
end

--- Are the tensors equal, up to `tolerance` of the norm of `want`?
local function near(want, got, tolerance, what)
  assert.same(want:shape(), got:shape(), what)
  local far, norm = (want - got):norm_value(), want:norm_value()
  assert.is_true(far <= tolerance * norm, ("%s: %g of %g"):format(what, far, norm))
end

--- Returns the results of fn(inputs as parameters...) in a precision, and the gradients of the inputs by backward with
--- gradients gys of the results.
local function run(name, fn, inputs, gys)
  local params = {}
  for i, t in ipairs(inputs) do params[i] = atomo.param(t:detach():clone()) end
  local ys = {atomo.autocast(name, fn, unpack(params))}
  local total
  for i, gy in ipairs(gys) do
    local part = (ys[i] * gy):sum()
    total = total and total + part or part
  end
  total:backward()
  local grads = {}
  for i, p in ipairs(params) do grads[i] = p.grad end
  return ys, grads
end

-- The sums of an f32 product differ by its order only. Where a rounded number depends on such a sum (a state, a
-- probability), one that lies near a tie may be rounded the other way: by 2^-8 of it.
local SUMS, TIES = 2e-6, 1e-3

describe("bf16: the operator", function()
  before_each(function() atomo.manual_seed(5) end)

  for _, c in ipairs {{4, 6, 5}, {1, 1, 1}, {33, 70, 65}, {1, 64, 3}, {128, 32, 48}} do
    local rows, inner, out = unpack(c)
    it(("linear [%d,%d] x [%d,%d]"):format(rows, inner, out, inner), function()
      local x, w, b, gy = randn(rows, inner), randn(out, inner), randn(out), randn(rows, out)
      local ys, grads = run("bf16", F.linear, {x, w, b}, {gy})
      near(F.linear(rounded(x), rounded(w), b), ys[1], SUMS, "y")
      near(rounded(gy):matmul(rounded(w)), grads[1], SUMS, "gx")
      near(rounded(gy):t():matmul(rounded(x)), grads[2], SUMS, "gw")
      near(gy:sum(1), grads[3], SUMS, "gb")
    end)
  end

  it("matmul, of views, transposed ones, batches and vectors", function()
    local wide = randn(9, 12)
    for _, c in ipairs {
      {randn(5, 7), randn(7, 3)}, {wide:t(), wide}, {wide:narrow(2, 3, 4), wide:narrow(1, 2, 4)},
      {wide:narrow(1, 2, 5):t(), wide:narrow(1, 1, 5)}, {randn(2, 3, 4), randn(2, 4, 5)},
      {randn(2, 4, 3):transpose(2, 3), randn(2, 4, 5)}, {randn(7), randn(7, 3)}, {randn(5, 7), randn(7)},
      {randn(1, 1), randn(1, 1)},
    } do
      local a, b = unpack(c)
      local gy = randn(a:matmul(b):shape())
      local ra, rb, rg = rounded(a), rounded(b), rounded(gy)
      local ys, grads = run("bf16", atomo.Tensor.matmul, {a, b}, {gy})
      local _, want = run("fp32", atomo.Tensor.matmul, {ra, rb}, {rg})
      near(ra:matmul(rb), ys[1], SUMS, "y")
      near(want[1], grads[1], SUMS, "ga")
      near(want[2], grads[2], SUMS, "gb")
    end
  end)

  it("linear_cross_entropy", function()
    local x, w, b, labels = randn(6, 9), randn(5, 9), randn(5), atomo.tensor({0, 4, 2, -100, 1, 1}, "i32")
    local function fused(px, pw, pb) return (F.linear_cross_entropy(px, pw, labels, {bias = pb})) end
    local ys, grads = run("bf16", fused, {x, w, b}, {atomo.tensor {1}:view {}})
    local logits = atomo.param(F.linear(rounded(x), rounded(w), b))
    local loss = F.cross_entropy(logits, labels)
    loss:backward()
    local g = rounded(logits.grad)
    near(loss, ys[1], SUMS, "loss")
    near(g:matmul(rounded(w)), grads[1], TIES, "gx")
    near(g:t():matmul(rounded(x)), grads[2], TIES, "gw")
    near(logits.grad:sum(1), grads[3], SUMS, "gb")
  end)

  for _, causal in ipairs {false, true} do
    it("attention" .. (causal and ", causal" or ""), function()
      local t, d = 70, 8 -- two blocks of queries
      local q, k, v, gy = randn(1, t, d), randn(1, t, d), randn(1, t, d), randn(1, t, d)
      local ys, grads = run("bf16", function(a, b, c)
        return F.scaled_dot_product_attention(a, b, c, {causal = causal})
      end, {q, k, v}, {gy})
      local rq, rk, rv, rg = rounded(q:view(t, d)), rounded(k:view(t, d)), rounded(v:view(t, d)), rounded(gy:view(t, d))
      local scores = rq:matmul(rk:t()) * (1 / math.sqrt(d))
      if causal then
        for i = 1, t - 1 do scores:narrow(1, i, 1):narrow(2, i + 1, t - i):fill_(-math.huge) end
      end
      local p = F.softmax(scores)
      local y = rounded(p):matmul(rv)
      near(y:view(1, t, d), ys[1], TIES, "y")
      local gp = rg:matmul(rv:t())
      local delta = (gy:view(t, d) * y):sum(2):view(t, 1)
      local g = rounded(p * (gp - delta) * (1 / math.sqrt(d)))
      near(g:matmul(rk):view(1, t, d), grads[1], TIES, "gq")
      near(g:t():matmul(rq):view(1, t, d), grads[2], TIES, "gk")
      near(rounded(p):t():matmul(rg):view(1, t, d), grads[3], TIES, "gv")
    end)
  end

  --- A layer's forward step by step, with a state that is rounded before each product.
  local function cells(kind, xg, w, b, h, c)
    local steps, n = xg:size(1), h:size(2)
    local ys = {}
    local function gate(t, k) return t:narrow(2, k * n + 1, n) end
    for t = 1, steps do
      local x = xg:select(1, t)
      local r = F.linear(rounded(h), rounded(w), b)
      if kind == "lstm" then
        local s = x + r
        c = F.sigmoid(gate(s, 1)) * c + F.sigmoid(gate(s, 0)) * F.tanh(gate(s, 2))
        h = F.sigmoid(gate(s, 3)) * F.tanh(c)
      else
        local reset, update = F.sigmoid(gate(x, 0) + gate(r, 0)), F.sigmoid(gate(x, 1) + gate(r, 1))
        local new = F.tanh(gate(x, 2) + reset * gate(r, 2))
        h = new - update * new + update * h
      end
      ys[t] = h
    end
    return atomo.stack(ys, 1)
  end

  for kind, gates in pairs {lstm = 4, gru = 3} do
    it(kind, function()
      local t, n, inner, h = 5, 3, 4, 6
      local x, wi, wh, bi, bh = randn(t, n, inner), randn(gates * h, inner), randn(gates * h, h), randn(gates * h),
        randn(gates * h)
      local h0, c0, gy = randn(n, h), kind == "lstm" and randn(n, h) or nil, randn(t, n, h)
      local function layer(...) return (F[kind](...)) end
      local inputs = {x, wi, wh, bi, bh, h0, c0}
      local ys, grads = run("bf16", layer, inputs, {gy})
      local xg = F.linear(rounded(x), rounded(wi), bi)
      near(cells(kind, xg, wh, bh, h0, c0), ys[1], TIES, "y")
      local _, exact = run("fp32", layer, inputs, {gy})
      for i, g in ipairs(grads) do near(exact[i], g, 0.03, "gradient " .. i) end
    end)
  end

  it("lstm multiplies the gates' gradients, rounded, with the states before them, rounded", function()
    local t, n, h = 5, 3, 4
    local h0, zeros = randn(n, h), atomo.zeros(4 * h)
    local inputs = {randn(t, n, 4 * h), atomo.eye(4 * h), randn(4 * h, h), zeros, zeros, h0, randn(n, h)}
    local ys, grads = run("bf16", function(...) return (F.lstm(...)) end, inputs, {randn(t, n, h)})
    local gates = grads[1]:view(-1, 4 * h) -- rounded, since the input's weight is the identity
    assert.equal(0, (gates - rounded(gates)):norm_value(math.huge))
    local before = atomo.cat({h0, ys[1]:narrow(1, 1, t - 1):reshape(-1, h)}, 1)
    near(gates:t():matmul(rounded(before)), grads[3], SUMS, "gw")
  end)

  -- {x, w, options}; the last but one has no kernel in oneDNN 2.6, the last two stay in fp32 on CPUs without AMX.
  for i, c in ipairs {
    {{2, 9, 9, 3}, {16, 3, 3, 3}, {padding = 1}}, {{2, 8, 8, 16}, {32, 3, 3, 16}, {padding = 1, stride = 2}},
    {{3, 7, 6, 64}, {64, 1, 1, 64}, {}}, {{2, 9, 10, 5}, {7, 5, 3, 5}, {padding = 2, dilation = 2}},
    {{1, 1, 1, 1}, {1, 1, 1, 1}, {}}, {{0, 4, 4, 3}, {2, 3, 3, 3}, {}}, {{2, 6, 6, 300}, {5, 6, 6, 300}, {padding = 5}},
    {{2, 8, 8, 16}, {16, 3, 3, 16}, {padding = 1}}, {{4, 16, 16, 64}, {64, 3, 3, 64}, {padding = 1}},
  } do
    it(("conv2d, case %d, by every engine"):format(i), function()
      local x, w, b = randn(unpack(c[1])), randn(unpack(c[2])), randn(c[2][1])
      local function conv(px, pw, pb) return F.conv2d(px, pw, pb, c[3]) end
      local gy = randn(conv(x, w, b):shape())
      for _, engine in ipairs {"auto", "direct", "onednn", "gemm"} do
        if pcall(atomo.nn.set_conv_engine, engine) then
          local ys, grads = run("bf16", conv, {x, w, b}, {gy})
          atomo.nn.set_conv_engine "gemm"
          local want, exact = run("fp32", conv, {rounded(x), rounded(w), b}, {rounded(gy)})
          -- case 8 and 9 may be Winograd's, in fp32
          local tolerance = i >= 8 and engine == "auto" and 2 ^ -7 or 3e-6
          near(want[1], ys[1], tolerance, engine .. " y")
          near(exact[1], grads[1], tolerance, engine .. " gx")
          near(exact[2], grads[2], tolerance, engine .. " gw")
          near(gy:view(-1, c[2][1]):sum(1), grads[3], SUMS, engine .. " gb")
        end
      end
      atomo.nn.set_conv_engine "auto"
    end)
  end

  it("conv2d keeps fp32, to the bit, in groups and by Winograd's engine", function()
    local x, gy = randn(2, 8, 8, 32), randn(2, 8, 8, 32)
    for _, c in ipairs {{"auto", 4}, {"winograd", 1}} do
      local w = randn(32, 3, 3, 32 / c[2])
      local function conv(px, pw) return F.conv2d(px, pw, nil, {padding = 1, groups = c[2]}) end
      atomo.nn.set_conv_engine(c[1])
      local want, exact = run("fp32", conv, {x, w}, {gy})
      local ys, grads = run("bf16", conv, {x, w}, {gy})
      atomo.nn.set_conv_engine "auto"
      for i, t in ipairs {ys[1], grads[1], grads[2]} do near(({want[1], exact[1], exact[2]})[i], t, 0, c[1]) end
    end
  end)

  it("conv2d adds to a gradient that is there", function()
    local x, w = randn(2, 8, 8, 16), randn(16, 3, 3, 16)
    local _, grads = run("bf16", function(px, pw)
      return F.conv2d(px, pw, nil, {stride = 2}) + px:narrow(2, 1, 3):narrow(3, 1, 3)
    end, {x, w}, {atomo.ones(2, 3, 3, 16)})
    local _, alone = run("bf16", function(px, pw) return F.conv2d(px, pw, nil, {stride = 2}) end, {x, w},
      {atomo.ones(2, 3, 3, 16)})
    local rest = grads[1] - alone[1]
    assert.is_true(math.abs(rest:sum():item() - 2 * 3 * 3 * 16) < 1e-2)
  end)

  it("conv_transpose2d", function()
    local x, w, gy = randn(2, 5, 4, 6), randn(6, 3, 3, 8), randn(2, 11, 9, 8)
    local function conv(px, pw) return F.conv_transpose2d(px, pw, nil, {stride = 2}) end
    local ys, grads = run("bf16", conv, {x, w}, {gy})
    local want, exact = run("fp32", conv, {rounded(x), rounded(w)}, {rounded(gy)})
    near(want[1], ys[1], SUMS, "y")
    near(exact[1], grads[1], SUMS, "gx")
    near(exact[2], grads[2], SUMS, "gw")
  end)

  it("passes infinities and NaN on", function()
    local inf = math.huge
    for _, bad in ipairs {inf, -inf, 0 / 0, 3.4e38} do -- the last is rounded to infinity
      local x = atomo.tensor {{bad, 1}, {1, 2}}
      local y = atomo.autocast(F.linear, x, atomo.tensor {{1, 0.5}})
      local got = y:get(1, 1)
      if bad ~= bad then assert.is_true(got ~= got) else assert.equal(bad > 0 and inf or -inf, got) end
      assert.equal(2, y:get(2, 1))
    end
    assert.is_true(atomo.autocast(F.linear, atomo.tensor {{3e38}}, atomo.tensor {{1}}):get(1, 1) < inf)
  end)

  it("of nothing gives nothing", function()
    local w = randn(3, 4)
    local ys, grads = run("bf16", F.linear, {atomo.zeros(0, 4), w}, {atomo.zeros(0, 3)})
    assert.same({0, 3}, ys[1]:shape())
    assert.equal(0, grads[2]:norm_value())
    assert.equal(0, atomo.autocast(function() return atomo.zeros(2, 0):matmul(atomo.zeros(0, 3)) end):norm_value())
    assert.same({0, 3}, atomo.autocast(function() return atomo.zeros(0, 2):matmul(atomo.zeros(2, 3)) end):shape())
  end)
end)

describe("bf16", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)
  before_each(function() atomo.manual_seed(3) end)

  -- An input's gradient is a sum of products of two rounded operands, each off by at most 2^-9 of itself. Differences
  -- of rounded results say nothing, so the gradients are compared with those of fp32.
  it("changes the gradient of an operator in its table by a few roundings, and of no other operator at all", function()
    local changed = {}
    autograd.observe(function(pass, op, ctx)
      if pass == "forward" and ctx.product_precision ~= 0 and not op.runs_user_code then changed[op.name] = true end
    end)
    local ok, why = pcall(gradients.each, function(name, fn, make)
      atomo.manual_seed(3)
      local inputs = make()
      local gys = {}
      for i, y in ipairs {fn(unpack(inputs))} do gys[i] = randn(y:shape()) end
      local _, exact = run("fp32", fn, inputs, gys)
      changed = {}
      local _, grads = run("bf16", fn, inputs, gys)
      local any = next(changed) ~= nil
      for i, g in pairs(exact) do
        near(g, grads[i], any and 0.05 or 0, ("%s, input %d"):format(name, i))
      end
      for op in pairs(changed) do assert.is_truthy(precision.operators[op], op) end
    end)
    autograd.observe(nil)
    assert.is_true(ok, why)
  end)

  it("is a gradient that gradcheck accepts with a tolerance of its own", function()
    -- Inputs and steps that bf16 holds: a difference of results is then exact, and the gradient is off by its own
    -- rounding, 2^-8 for each of two operands.
    local x, w = atomo.tensor {{1, -2, 0.5}, {0.25, 1.5, -1}}, atomo.tensor {{0.5, 1, -1}, {2, -0.5, 1}}
    local ok, worst = atomo.autocast(atomo.gradcheck, function(a, b) return F.linear(a, b) end, {x, w},
      {eps = 2 ^ -5, tolerance = 2 * 2 ^ -8})
    assert.is_true(ok, ("worst %g"):format(worst))
    assert.is_true(worst > 2e-5, "nothing was rounded")
  end)

  it("has the table of operators that docs/guide.md has", function()
    local text = shell.read(require "support.root" .. "./docs/guide.md")
    local listed = {}
    for name, what in text:match("\n### Precision\n(.-)\n### "):gmatch "\n| `([%w_]+)` | ([^|]+) |" do
      listed[name] = what
    end
    assert.same(precision.operators, listed)
    local known = {}
    for _, name in ipairs(atomo.operators()) do known[name] = true end
    for name in pairs(precision.operators) do assert.is_true(known[name], name) end
  end)

  it("leaves every bit of fp32 as it is, before and after it", function()
    local x, w = randn(20, 30), randn(10, 30)
    local before = F.linear(x, w)
    atomo.set_precision "bf16"
    local other = F.linear(x, w)
    atomo.set_precision "fp32"
    assert.equal(0, (F.linear(x, w) - before):norm_value())
    assert.is_true((other - before):norm_value() > 1e-4 * before:norm_value())
  end)

  for _, first in ipairs {"bf16", "fp32"} do
    local second = first == "bf16" and "fp32" or "bf16"
    it(("of %s in forward is that of backward, whatever holds then"):format(first), function()
      local x, w, gy = randn(6, 9), randn(5, 9), randn(6, 5)
      local _, want = run(first, F.linear, {x, w}, {gy})
      local px, pw = atomo.param(x:clone()), atomo.param(w:clone())
      local y = atomo.autocast(first, F.linear, px, pw)
      atomo.set_precision(second)
      atomo.autocast(second, function() (y * gy):sum():backward() end)
      atomo.set_precision "fp32"
      assert.equal(0, (px.grad - want[1]):norm_value())
      assert.equal(0, (pw.grad - want[2]):norm_value())
    end)

    it(("of %s holds for the backward of a user's operator and of nn.Checkpoint"):format(first), function()
      local seen = {}
      local op = atomo.func {name = "mine", forward = function(_, x)
        seen[1] = atomo.precision()
        return x * 1
      end, backward = function(_, g)
        seen[2] = atomo.precision()
        return g * 1
      end}
      local body = atomo.nn.Checkpoint(atomo.nn.Sequential {atomo.nn.Linear(3, 2), function(x)
        seen[#seen + 1] = atomo.precision()
        return x
      end})
      local y = atomo.autocast(first, function() return body(op(atomo.param(randn(2, 3)))) end)
      atomo.autocast(second, function() y:sum():backward() end)
      assert.same({first, first, first, first}, {seen[1], seen[2], seen[3] or first, seen[4] or first})
      assert.equal(3, #seen)
    end)
  end
end)

describe("autocast", function()
  after_each(function() atomo.set_precision "fp32" end)

  it("nests, passes arguments and results on, and restores what held before", function()
    assert.equal("fp32", atomo.precision())
    local a, b, c = atomo.autocast(function(...)
      local inner = atomo.autocast("fp32", function() return atomo.autocast(atomo.precision) .. atomo.precision() end)
      return atomo.precision(), inner, select("#", ...)
    end, 1, nil, nil)
    assert.same({"bf16", "bf16fp32", 3}, {a, b, c})
    assert.equal("fp32", atomo.precision())
  end)

  it("restores it after an error", function()
    local ok, text = pcall(atomo.autocast, function() atomo.autocast("fp32", error, "on purpose", 0) end)
    assert.is_false(ok)
    assert.equal("on purpose", text)
    assert.equal("fp32", atomo.precision())
  end)

  it("holds until it returns, whatever set_precision sets meanwhile for the time after", function()
    local inside = atomo.autocast("fp32", function()
      atomo.set_precision "bf16"
      return atomo.precision()
    end)
    assert.same({"fp32", "bf16"}, {inside, atomo.precision()})
  end)

  it("is of the coroutine that calls it", function()
    local co = coroutine.wrap(function()
      atomo.autocast(function()
        coroutine.yield(atomo.precision())
        coroutine.yield(atomo.precision())
      end)
      coroutine.yield(atomo.precision())
    end)
    assert.equal("bf16", co())
    assert.equal("fp32", atomo.precision())
    assert.equal("bf16", atomo.autocast("fp32", co))
    assert.equal("bf16", atomo.autocast(function()
      assert.equal("bf16", co())
      return atomo.precision()
    end))
    assert.equal("fp32", atomo.precision())
  end)

  it("and set_precision refuse what is no precision", function()
    for _, case in ipairs {
      {"set_precision: 'fp16', a string, expected 'fp32' or 'bf16'", atomo.set_precision, "fp16"},
      {"set_precision: missing, expected 'fp32' or 'bf16'", atomo.set_precision},
      {"set_precision: 16, expected 'fp32' or 'bf16'", atomo.set_precision, 16},
      {"autocast: 'half', a string, expected 'fp32' or 'bf16'", atomo.autocast, "half", print},
      {"autocast: expected a function, got nothing", atomo.autocast, "bf16"},
      {"autocast: expected a function, got nothing", atomo.autocast},
    } do
      local ok, text = pcall(unpack(case, 2))
      assert.is_false(ok)
      assert.is_truthy(text:find(case[1], 1, true), text)
    end
    atomo.set_precision "f32" -- the name of the dtype
    assert.equal("fp32", atomo.precision())
  end)

  it("leaves the functions of scripted compressors in fp32", function()
    local seen
    atomo.basis("precision_spec", {analyze = function(g)
      seen = atomo.precision()
      return g
    end, synthesize = function(c) return c end})
    local compressor = atomo.compressor "precision_spec:ratio=2"
    atomo.autocast(compressor.encode, compressor, randn(8, 8), {step = 1, tensor = 1})
    assert.equal("fp32", seen)
  end)
end)

describe("the products of a CPU without bf16 instructions", function()
  -- oneDNN then reports no such instructions. Products are by conversion, as in a build without oneDNN.
  local limited = "ONEDNN_MAX_CPU_ISA=AVX512_CORE DNNL_MAX_CPU_ISA=AVX512_CORE"
  local is_child = os.getenv "ONEDNN_MAX_CPU_ISA" == "AVX512_CORE"
  local child = not is_child and spawn.exe and not spawn.sanitized and it or pending
  child("are the same, and are said to be slow", function()
    local here = debug.getinfo(1, "S").source:match "^@(.*)$"
    local out, code = spawn.run(("env %s %s test %s"):format(limited, spawn.quote(spawn.exe), spawn.quote(here)),
      {timeout = 60})
    assert.equal(0, code, out)
    out = spawn.run(("env %s %s -e %s"):format(limited, spawn.quote(spawn.exe),
      spawn.quote "print(require('atomo.autograd.precision').describe())"))
    local why = require("atomo.core.version").versions().onednn == "none" and "this build has no oneDNN" or
      "this CPU does not multiply bf16"
    local expected = ("bf16 by conversion: %s, so it is no faster than fp32\tfalse"):format(why)
    assert.is_truthy(out:find(expected, 1, true), out)
  end)
end)
