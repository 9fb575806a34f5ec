-- Losses, activations, norms, attention, recurrent layers, transposed and grouped convolutions against finite
-- differences on odd shapes; nn.Checkpoint against the plain layer; bits against the number of threads.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

local function passes(fn, inputs, opts)
  local ok, worst = atomo.gradcheck(fn, inputs, opts)
  assert.is_true(ok, ("worst relative error %g"):format(worst))
end

--- gradcheck of a layer by its input and all its parameters.
local function layer_passes(layer, x, opts)
  local inputs = {x}
  for _, p in ipairs(layer:parameters()) do inputs[#inputs + 1] = p end
  passes(function(a) return layer(a) end, inputs, opts)
end

local randn = atomo.randn

describe("gradcheck of", function()
  require("support.one_thread")(lazy_setup, lazy_teardown)
  before_each(function() atomo.manual_seed(4) end)

  it("losses", function()
    local labels = atomo.tensor({2, -100, 4}, "i32")
    passes(function(x) return F.cross_entropy(x, labels, {label_smoothing = 0.2}) end, {randn(3, 5)})
    passes(function(x) return F.cross_entropy(x, labels:view(1, 3), {reduction = "sum"}) end, {randn(1, 3, 5)})
    passes(function(x) return F.nll_loss(x, labels) end, {randn(3, 5)})
    local weight = atomo.rand(5):add_(0.5)
    for _, reduction in ipairs {"mean", "sum", "none"} do
      passes(function(x) return F.cross_entropy(x, labels, {weight = weight, label_smoothing = 0.3,
        reduction = reduction}) end, {randn(3, 5)})
      passes(function(x) return F.nll_loss(x, labels, {weight = weight, reduction = reduction}) end, {randn(3, 5)})
    end
    passes(function(x, t) return F.mse_loss(x, t, {reduction = "none"}) end, {randn(3, 5), randn(3, 5)})
    passes(function(x, t) return F.bce_with_logits(x, t, {reduction = "none"}) end, {randn(3, 5), atomo.rand(3, 5)})
    passes(F.mse_loss, {randn(3, 5), randn(3, 5)})
    passes(F.bce_with_logits, {randn(3, 5), atomo.rand(3, 5)})
    passes(function(x, t) return F.bce_with_logits(x, t, {reduction = "sum"}) * 2 end, {randn(1), atomo.rand(1)})
  end)

  it("activations", function()
    for _, name in ipairs {"gelu", "silu", "tanh", "sigmoid"} do
      passes(F[name], {randn(3, 7)})
      passes(F[name], {randn(1)})
    end
    passes(function(x) return F.gelu(x, "tanh") end, {randn(3, 7)})
    passes(F.leaky_relu, {atomo.tensor {-2, -1, -0.5, 0.5, 1, 3}})
  end)

  it("layer_norm and group_norm", function()
    passes(function(x, w, b) return F.layer_norm(x, 17, w, b) end, {randn(3, 17), randn(17), randn(17)})
    passes(function(x, w, b) return F.layer_norm(x, {3, 2}, w, b) end, {randn(70, 3, 2), randn(3, 2), randn(3, 2)},
      {eps = 5e-3, tolerance = 1e-2})
    passes(function(x) return F.layer_norm(x, 5) end, {randn(2, 3, 5)})
    passes(function(x, w, b) return F.group_norm(x, 3, w, b) end, {randn(2, 3, 1, 6), randn(6), randn(6)})
    passes(function(x, w, b) return F.group_norm(x, 1, w, b) end, {randn(3, 5), randn(5), randn(5)})
    layer_passes(nn.BatchNorm1d(3), randn(5, 3), {tolerance = 4e-3})
    layer_passes(nn.BatchNorm1d(3), randn(2, 3, 3), {tolerance = 4e-3})
  end)

  it("embedding", function()
    local index = atomo.tensor({{1, 3, 1}, {0, 6, 3}}, "i32")
    passes(function(w) return F.embedding(index, w) end, {randn(7, 5)})
  end)

  it("adaptive_avg_pool2d", function()
    for _, size in ipairs {{1, 1}, {3, 2}, {6, 7}} do
      passes(function(x) return F.adaptive_avg_pool2d(x, size) end, {randn(2, 5, 4, 3)})
    end
  end)

  it("conv_transpose2d", function()
    passes(F.conv_transpose2d, {randn(1, 1, 1, 1), randn(1, 1, 1, 1), randn(1)})
    for _, o in ipairs {{stride = 2, padding = 1, output_padding = {1, 0}}, {stride = {1, 3}, dilation = {2, 1}},
      {groups = 2, padding = {1, 0}}} do
      passes(function(x, w, b) return F.conv_transpose2d(x, w, b, o) end,
        {randn(2, 3, 2, 4), randn(4, 3, 2, 6 / (o.groups or 1)), randn(6)})
    end
  end)

  it("depthwise convolutions, with a multiplier and stride", function()
    for _, m in ipairs {1, 2} do
      passes(function(x, w) return F.conv2d(x, w, nil, {groups = 3, padding = 1, stride = 2}) end,
        {randn(2, 5, 4, 3), randn(3 * m, 3, 3, 1)})
    end
  end)

  it("attention, causal or not, packed or not, with its dropout held", function()
    passes(function(q, k, v) return F.scaled_dot_product_attention(q, k, v, {heads = 2}) end,
      {randn(2, 3, 6), randn(2, 5, 6), randn(2, 5, 6)})
    passes(function(q, k, v) return F.scaled_dot_product_attention(q, k, v, {heads = 3, causal = true}) end,
      {randn(1, 5, 3), randn(1, 4, 3), randn(1, 4, 3)})
    passes(function(x) return F.self_attention(x, {heads = 2, causal = true}) end, {randn(2, 5, 12)})
    passes(function(x)
      F.dropout_stream(0, 3)
      return F.self_attention(x, {heads = 2, causal = true, dropout = 0.3})
    end, {randn(2, 5, 12)})
    layer_passes(nn.MultiHeadAttention(4, 2, {causal = true}), randn(3, 2, 4))
    passes(function(q, k, v)
      F.dropout_stream(0, 3)
      return F.scaled_dot_product_attention(q, k, v, {heads = 2, dropout = 0.2, mask = atomo.tensor {{0.5, -1, 2},
        {-math.huge, 0, 1}}, key_mask = atomo.tensor({{0, 0, 1}, {1, 0, 0}}, "u8")})
    end, {randn(2, 2, 4), randn(2, 3, 4), randn(2, 3, 4)})
  end)

  it("attention over more than one block of rows", function()
    passes(function(x) return F.self_attention(x, {causal = true}) end, {randn(1, 67, 3)})
    passes(function(q, k, v) return F.scaled_dot_product_attention(q, k, v) end,
      {randn(1, 66, 1), randn(1, 3, 1), randn(1, 3, 1)})
  end)

  it("lstm and gru", function()
    layer_passes(nn.LSTM(3, 2, {num_layers = 2}), randn(3, 2, 3))
    layer_passes(nn.GRU(3, 2, {num_layers = 2}), randn(3, 2, 3))
    layer_passes(nn.LSTM(1, 1, {bias = false}), randn(1, 1, 1))
    layer_passes(nn.LSTM(2, 2, {bidirectional = true, batch_first = true}), randn(2, 3, 2))
    layer_passes(nn.GRU(2, 1, {bidirectional = true, num_layers = 2}), randn(3, 1, 2))
    passes(function(x, h, c)
      local gru = nn.GRU(2, 3, {batch_first = true})
      for _, p in ipairs(gru:parameters()) do p:detach():fill_(0.3) end
      return gru(x, h * c)
    end, {randn(2, 3, 2), randn(1, 2, 3), randn(1, 2, 3)})
  end)

  it("lstm by its last states", function()
    local lstm = nn.LSTM(2, 3)
    passes(function(x, h0, c0)
      local _, h, c = lstm(x, h0, c0)
      return h, c
    end, {randn(3, 2, 2), randn(1, 2, 3), randn(1, 2, 3)})
  end)

  it("Concat and Residual", function()
    layer_passes(nn.Concat {nn.Linear(3, 2), function(x) return x end}, randn(2, 3))
    layer_passes(nn.Residual(nn.Linear(3, 3)), randn(2, 3))
  end)

  it("Checkpoint", function()
    layer_passes(nn.Checkpoint(nn.Sequential {nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)}), randn(2, 3))
  end)
end)

describe("attention", function()
  before_each(function() atomo.manual_seed(6) end)

  it("equals softmax(q k^T / sqrt(d)) v over several blocks", function()
    local n, t, s, c = 2, 130, 70, 8
    local q, k, v = randn(n, t, c), randn(n, s, c), randn(n, s, c)
    local want = F.softmax(q:matmul(k:transpose(2, 3):contiguous()) * (1 / math.sqrt(c)), 3):matmul(v)
    local got = F.scaled_dot_product_attention(q, k, v)
    assert.is_true((got - want):abs():max():item() < 1e-5)
  end)

  it("with a causal mask does not see later positions", function()
    local x = randn(1, 100, 12)
    local y = F.self_attention(x, {heads = 2, causal = true})
    x:narrow(2, 91, 10):fill_(7)
    local z = F.self_attention(x, {heads = 2, causal = true})
    assert.equal(y:narrow(2, 1, 90):contiguous():bytes(), z:narrow(2, 1, 90):contiguous():bytes())
  end)

  it("with masks: as many keys as are seen, nothing from hidden ones, 0 where none is seen", function()
    local n, t, s, c = 2, 70, 66, 4
    local q, k, v = randn(n, t, c), randn(n, s, c), randn(n, s, c)
    local key_mask = atomo.zeros({n, s}, "u8")
    for i = 51, s do key_mask:set(1, i, 1) end
    key_mask:narrow(1, 2, 1):fill_(1)
    v:narrow(1, 1, 1):narrow(2, 51, s - 50):fill_(3e38) -- hidden by the mask: its weight must be exactly 0
    local leaf = atomo.param(q:clone())
    local y = F.scaled_dot_product_attention(leaf, k, v, {key_mask = key_mask})
    local short = F.scaled_dot_product_attention(q:narrow(1, 1, 1), k:narrow(1, 1, 1):narrow(2, 1, 50),
      v:narrow(1, 1, 1):narrow(2, 1, 50))
    assert.is_true((y:detach():narrow(1, 1, 1) - short):abs():max():item() < 1e-6)
    assert.equal(0, y:detach():narrow(1, 2, 1):abs():max():item())
    y:sum():backward()
    assert.equal(0, leaf.grad:narrow(1, 2, 1):abs():max():item())
    local lower = atomo.zeros({t, t}, "u8")
    for i = 1, t do
      for j = i + 1, t do lower:set(i, j, 1) end
    end
    local x = randn(n, t, 12)
    local causal, masked = F.self_attention(x, {causal = true}), F.self_attention(x, {mask = lower})
    assert.is_true((causal - masked):abs():max():item() < 1e-6)
  end)

  it("needs memory that grows with T, not T x T", function()
    local t = 4096
    local x = atomo.param(randn(1, t, 24))
    collectgarbage()
    collectgarbage()
    local before = atomo.mem().live
    require("atomo.ffi").C.atomo_mem_reset_peak()
    F.self_attention(x, {causal = true}):sum():backward()
    assert.is_true(atomo.mem().peak - before < 0.5 * 4 * t * t, "as much as half a score matrix")
  end)

  it("dropout keeps the mean", function()
    local q, k, v = atomo.zeros(64, 32, 4), atomo.zeros(64, 32, 4), atomo.ones(64, 32, 4)
    F.dropout_stream(0, 1)
    local y = F.scaled_dot_product_attention(q, k, v, {dropout = 0.25})
    -- mean over 64 * 32 queries of 32 keys at 1/32: standard error sqrt(p / (1 - p) / 65536) = 0.00226; 5 of them:
    -- false alarm below 1e-6
    assert.is_near(1, y:mean():item(), 0.0113)
  end)
end)

describe("Checkpoint", function()
  local function net()
    atomo.manual_seed(9)
    return nn.Sequential {nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, {relu = true}), nn.Dropout(0.3), nn.Conv2d(4, 3, 3)}
  end

  it("gives the same result, gradients, dropout masks and running statistics, bit for bit", function()
    local plain, body = net(), net()
    local held = nn.Checkpoint(body)
    local x = randn(3, 7, 6, 2)
    local function run(m)
      F.dropout_stream(0, 2)
      local leaf, ready = atomo.param(x:clone()), 0
      local y = m(leaf)
      local following = F.dropout(atomo.ones(50))
      y:square():sum():backward(nil, {on_ready = function() ready = ready + 1 end})
      return {y, leaf.grad, following, F.dropout(atomo.ones(50))}, ready
    end
    local a, ready_a = run(plain)
    local b, ready_b = run(held)
    for i = 1, 4 do assert.equal(a[i]:bytes(), b[i]:bytes()) end
    assert.equal(ready_a, ready_b)
    local state = body:state_dict()
    for name, t in pairs(plain:state_dict()) do
      assert.equal(t:bytes(), state[name]:bytes(), name)
      if t.grad then assert.equal(t.grad:bytes(), state[name].grad:bytes(), name) end
    end
  end)

  it("holds less memory at its peak", function()
    local function peak(wrap)
      local layers = {}
      for i = 1, 8 do layers[i] = wrap(nn.Sequential {nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()}) end
      local m, x = nn.Sequential(layers), randn(512, 64)
      collectgarbage()
      collectgarbage()
      local before = atomo.mem().live
      require("atomo.ffi").C.atomo_mem_reset_peak()
      atomo.scope(function() m(x):sum():backward() end)
      return atomo.mem().peak - before
    end
    local plain, held = peak(function(m) return m end), peak(nn.Checkpoint)
    assert.is_true(held < 0.6 * plain, ("%g of %g bytes"):format(held, plain))
  end)

  it("refuses a body that is no module", function()
    local ok, message = pcall(nn.Checkpoint, 3)
    assert.is_false(ok)
    assert.truthy(message:find("Checkpoint: body is a number, expected a module", 1, true))
  end)
end)

describe("bits do not depend on the number of threads:", function()
  local function bits(run)
    local before, results = atomo.num_threads(), {}
    for i, threads in ipairs {1, 3} do
      atomo.set_num_threads(threads)
      atomo.manual_seed(5)
      results[i] = run()
    end
    atomo.set_num_threads(before)
    assert.is_true(results[1] == results[2])
  end
  local function forward_backward(layer, x)
    x = atomo.param(x)
    local y = layer(x)
    y:backward(randn(y:shape()))
    local text = y:detach():contiguous():bytes() .. x.grad:bytes()
    for _, p in ipairs(layer:parameters()) do text = text .. p.grad:bytes() end
    return text
  end
  it("LayerNorm", function()
    bits(function() return forward_backward(nn.LayerNorm(65), randn(1000, 65)) end)
  end)
  it("GroupNorm", function()
    bits(function() return forward_backward(nn.GroupNorm(5, 15), randn(7, 31, 17, 15)) end)
  end)
  it("attention", function()
    bits(function()
      local x = atomo.param(randn(5, 70, 24))
      local y = F.self_attention(x, {heads = 2})
      y:backward(randn(y:shape()))
      return y:bytes() .. x.grad:bytes()
    end)
  end)
end)
