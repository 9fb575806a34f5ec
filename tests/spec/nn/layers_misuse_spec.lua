-- Errors of layers that are misused, empty batches, initial values and defaults.
local atomo = require "atomo"
local fails = require "support.fails"
local nn, F = atomo.nn, atomo.F

local zeros = atomo.zeros
local function labels(...) return atomo.tensor({...}, "i32") end

describe("misuse of", function()
  it("losses", function()
    fails("cross_entropy: labels is [2], logits is [2,3,5]: expected [2,3]", F.cross_entropy, zeros(2, 3, 5),
      labels(1, 2))
    fails("cross_entropy: label -1 at position 2, expected 0 to 4", F.cross_entropy, zeros(2, 5), labels(1, -1))
    fails("cross_entropy: label_smoothing is 2", F.cross_entropy, zeros(1, 5), labels(1), {label_smoothing = 2})
    fails("cross_entropy: unknown option 'smoothing'", F.cross_entropy, zeros(1, 5), labels(1), {smoothing = 2})
    fails("cross_entropy: reduction is 'max', expected mean, sum or none", F.cross_entropy, zeros(1, 5), labels(1),
      {reduction = "max"})
    fails("cross_entropy: weight is f32 [4], logits is [1,5]: expected contiguous f32 [5]", F.cross_entropy,
      zeros(1, 5), labels(1), {weight = zeros(4)})
    fails("cross_entropy: weight is i32, expected f32", F.cross_entropy, zeros(1, 5), labels(1), {weight = labels(1)})
    local function fused(...) fails((...), F.linear_cross_entropy, select(2, ...)) end
    fused("linear_cross_entropy: input is [2,3], weight is [5,4]: expected input [..., 4]", zeros(2, 3), zeros(5, 4),
      labels(1, 2))
    fused("linear_cross_entropy: labels is [3], input is [2,4]: expected [2]", zeros(2, 4), zeros(5, 4),
      labels(1, 2, 3))
    fused("linear_cross_entropy: label 5 at position 2, expected 0 to 4", zeros(2, 4), zeros(5, 4), labels(1, 5))
    fused("linear_cross_entropy: bias is [4], weight is [5,4]: expected [5]", zeros(2, 4), zeros(5, 4), labels(1, 2),
      {bias = zeros(4)})
    fused("linear_cross_entropy: weight is missing", zeros(2, 4), nil, labels(1, 2))
    fused("linear_cross_entropy: labels is f32, expected i32", zeros(2, 4), zeros(5, 4), zeros(2))
    fused("linear_cross_entropy: input is [0,4]", zeros(0, 4), zeros(5, 4), zeros(0, "i32"))
    fused("linear_cross_entropy: reduction is 'none', expected mean or sum", zeros(2, 4), zeros(5, 4), labels(1, 2),
      {reduction = "none"})
    fused("linear_cross_entropy: label_smoothing is 2", zeros(2, 4), zeros(5, 4), labels(1, 2), {label_smoothing = 2})
    fused("linear_cross_entropy: unknown option 'ignore'", zeros(2, 4), zeros(5, 4), labels(1, 2), {ignore = 2})
    fails("nll_loss: the weights of the labels' classes sum to -1", F.nll_loss, zeros(1, 5), labels(1),
      {weight = atomo.full({5}, -1)})
    fails("cross_entropy: weight requires a gradient", F.cross_entropy, zeros(1, 5), labels(1),
      {weight = atomo.param(zeros(5))})
    fails("nll_loss: label 5 at position 1", F.nll_loss, zeros(1, 5), labels(5))
    fails("mse_loss: input is [2], target is [3]", F.mse_loss, zeros(2), zeros(3))
    fails("bce_with_logits: target is missing", F.bce_with_logits, zeros(2))
    fails("bce_with_logits: pos_weight is [2], input is [2,3]", F.bce_with_logits, zeros(2, 3), zeros(2, 3),
      {pos_weight = zeros(2)})
    fails("bce_with_logits: weight is [1,1,3], input is [2,3]", F.bce_with_logits, zeros(2, 3), zeros(2, 3),
      {weight = zeros(1, 1, 3)})
    fails("bce_with_logits: weight requires a gradient", F.bce_with_logits, zeros(2), zeros(2),
      {weight = atomo.param(zeros(2))})
    fails("labels is f32, expected i32: class ids, or of class probabilities the logits' shape [2,5], got [2]",
      F.cross_entropy, zeros(2, 5), zeros(2))
    fails("cross_entropy: ignore_index is of class ids", F.cross_entropy, zeros(2, 5), zeros(2, 5), {ignore_index = 1})
    fails("MSELoss: unknown option 'weight'", nn.MSELoss, {weight = zeros(1)})
    fails("mse_loss: input is [0], an empty batch has no loss", F.mse_loss, zeros(0), zeros(0))
  end)

  it("norms", function()
    fails("layer_norm: input is [2,4], its last sizes should be [5]", nn.LayerNorm(5), zeros(2, 4))
    fails("layer_norm: input is [5], its last sizes should be [4,5]", nn.LayerNorm {4, 5}, zeros(5))
    fails("layer_norm: input is i32, expected f32", nn.LayerNorm(5), zeros(2, 5, "i32"))
    fails("LayerNorm: normalized_shape is 0", nn.LayerNorm, 0)
    fails("GroupNorm: 3 groups do not divide 4 channels", nn.GroupNorm, 3, 4)
    fails("group_norm: 2 groups do not divide the 5 channels of input [2,3,5]", F.group_norm, zeros(2, 3, 5), 2)
    fails("group_norm: weight is [4], input is [2,3,6]: expected [6]", F.group_norm, zeros(2, 3, 6), 2, zeros(4))
    fails("GroupNorm: input is [2,3,6], expected [N, ..., 4]", nn.GroupNorm(2, 4, {affine = false}), zeros(2, 3, 6))
    fails("BatchNorm2d: affine is 1, expected true or false", nn.BatchNorm2d, 3, {affine = 1})
    fails("BatchNorm1d: momentum is 2, expected 0 to 1", nn.BatchNorm1d, 3, {momentum = 2})
    fails("batch_norm: weight is [4], input is [2,3]: expected [3]", F.batch_norm, zeros(2, 3), zeros(4), nil,
      {training = true})
    fails("BatchNorm1d: input is [2,3,3,4], expected [N, 4] or [N, L, 4]", nn.BatchNorm1d(4), zeros(2, 3, 3, 4))
    local norm = nn.BatchNorm1d(1)
    norm.momentum = false
    fails("BatchNorm1d: momentum was set to false; only a layer made with {momentum = false} counts its batches", norm,
      zeros(2, 1))
    for _, momentum in ipairs {2, -0.5, 0 / 0} do
      norm.momentum = momentum
      fails("batch_norm: momentum is", norm, zeros(2, 1))
      assert.equal(0, norm.running_mean:item())
    end
    norm = nn.BatchNorm1d(2, {momentum = false})
    fails("batch_norm", norm, zeros(4, 3)) -- does not count
    norm(atomo.tensor {{1, 2}, {3, 6}})
    assert.same({2, 4}, norm.running_mean:totable())
  end)

  it("embeddings: the index and its position", function()
    local e = nn.Embedding(7, 3)
    fails("embedding: index 7 at position [2,1] of input [2,2], expected 0 to 6", e, labels(0, 6, 7, 1):view(2, 2))
    fails("embedding: index -1 at position [1]", e, labels(-1))
    fails("embedding: input is f32, expected i32", e, zeros(2))
    fails("Embedding: num_embeddings is 0", nn.Embedding, 0, 3)
    fails("Embedding: padding_idx is 7, expected 0 to 6", nn.Embedding, 7, 3, {padding_idx = 7})
    fails("Embedding: padding_idx is -8, expected a whole number >= -7", nn.Embedding, 7, 3, {padding_idx = -8})
    assert.equal(6, nn.Embedding(7, 3, {padding_idx = -1}).padding_idx)
    for _, row in ipairs {7, -8} do
      fails(("embedding: padding_idx is %d, expected -7 to 6: weight has 7 rows"):format(row), F.embedding, labels(1),
        zeros(7, 3), row)
    end
  end)

  it("activations and pooling", function()
    fails("gelu: approximate is 'fast', expected none or tanh", F.gelu, zeros(1), "fast")
    fails("GELU: unknown option 'approx'", nn.GELU, {approx = "tanh"})
    fails("silu: input is missing", F.silu)
    fails("LeakyReLU: negative_slope is a string", nn.LeakyReLU, "a")
    fails("Softmax: dim is 0", nn.Softmax, 0)
    fails("avg_pool2d: divisor_override is 0, expected a whole number >= 1", nn.AvgPool2d, 2, {divisor_override = 0})
    fails("avg_pool2d: unknown option 'dilation'", nn.AvgPool2d, 2, {dilation = 2})
    fails("max_pool2d: ceil_mode is 1, expected true or false", F.max_pool2d, zeros(1, 4, 4, 1), 2, {ceil_mode = 1})
    fails("max_pool2d: input [1,1,4,1] is smaller than the kernel {3,3}", F.max_pool2d, zeros(1, 1, 4, 1), 3,
      {stride = 1, ceil_mode = true})
    fails("Flatten: input is [2,3], it has no dimensions 3 to -1", nn.Flatten(3), zeros(2, 3))
    fails("Flatten: end_dim is 0", nn.Flatten, 1, 0)
    fails("adaptive_avg_pool2d: output_size is 0", F.adaptive_avg_pool2d, zeros(1, 2, 2, 1), 0)
    fails("adaptive_avg_pool2d: input has shape [2,2]", F.adaptive_avg_pool2d, zeros(2, 2), 1)
  end)

  it("convolutions", function()
    fails("Conv2d: padding 'same' wants stride 1, got {2,2}", nn.Conv2d, 3, 4, 3, {padding = "same", stride = 2})
    fails("Conv2d: padding is 'full', expected same, valid", nn.Conv2d, 3, 4, 3, {padding = "full"})
    fails("conv2d: padding is 'full'", F.conv2d, zeros(1, 4, 4, 3), zeros(2, 3, 3, 3), nil, {padding = "full"})
    fails("conv2d: weight is [2,3], expected [out, kh, kw, in/groups]", F.conv2d, zeros(1, 4, 4, 3), zeros(2, 3), nil,
      {padding = "same"})
    fails("Conv2d: padding_mode is 'mirror', expected zeros, reflect, replicate or circular", nn.Conv2d, 3, 4, 3,
      {padding_mode = "mirror"})
    fails("Conv2d: input is [1,2,4,3], padding 2 in mode reflect needs at least 3 in dimension 2",
      nn.Conv2d(3, 4, 3, {padding = 2, padding_mode = "reflect"}), zeros(1, 2, 4, 3))
    fails("Conv2d: input is [2,4,3], expected [N,H,W,C]", nn.Conv2d(3, 4, 3, {padding_mode = "circular"}),
      zeros(2, 4, 3))
    fails("Conv2d: init is a string, expected a function", nn.Conv2d, 3, 4, 3, {init = "zeros"})
    fails("ConvTranspose2d: padding is same", nn.ConvTranspose2d, 3, 4, 3, {padding = "same"})
  end)

  it("transposed convolutions", function()
    fails("conv_transpose2d: input is [1,2,2,3], weight is [4,3,3,2]", F.conv_transpose2d, zeros(1, 2, 2, 3),
      zeros(4, 3, 3, 2))
    fails("output_padding {1,1}, expected less than stride {1,1}", nn.ConvTranspose2d, 3, 4, 3, {output_padding = 1})
    fails("ConvTranspose2d: 2 groups do not divide 3 input", nn.ConvTranspose2d, 3, 4, 3, {groups = 2})
    fails("bias is [1], weight is [3,2,2,4]: expected [4]", F.conv_transpose2d, zeros(1, 2, 2, 3), zeros(3, 2, 2, 4),
      zeros(1))
    fails("the result would have no positions", F.conv_transpose2d, zeros(1, 1, 1, 3), zeros(3, 2, 2, 4), nil,
      {padding = 2})
  end)

  it("attention", function()
    fails("MultiheadAttention: 3 heads do not divide embed_dim 4", nn.MultiheadAttention, 4, 3)
    fails("MultiheadAttention: query is [2,3,5], expected [T, N, C] with 4 channels", nn.MultiheadAttention(4, 2),
      zeros(2, 3, 5))
    fails("MultiheadAttention: key is [2,3,4], expected [T, N, C] with 3 channels",
      nn.MultiheadAttention(4, 2, {kdim = 3}), zeros(2, 3, 4))
    fails("attention: query is [2,3,4], key [2,5,6], value [2,5,6]", F.scaled_dot_product_attention, zeros(2, 3, 4),
      zeros(2, 5, 6), zeros(2, 5, 6))
    fails("attention: qkv is [2,3,4], expected [N, T, 3 C]", F.self_attention, zeros(2, 3, 4))
    fails("attention: 2 heads do not divide the channels of query [2,3,3]", F.self_attention, zeros(2, 3, 9),
      {heads = 2})
    fails("attention: dropout: p is 1", F.self_attention, zeros(2, 3, 9), {dropout = 1})
  end)

  it("attention masks", function()
    local x = zeros(2, 3, 6)
    local function attend(o) return F.scaled_dot_product_attention(x, x, x, o) end
    fails("attention: mask is [1,3,4], expected to repeat to [2,3,3]", attend, {mask = zeros(3, 4)})
    fails("attention: mask is [3], expected [T, S] or [N, T, S]", attend, {mask = zeros(3)})
    fails("attention: key_mask is [2,1,3], expected [N, S]", attend, {key_mask = zeros(2, 1, 3)})
    fails("attention: key_mask is [2,1,5], expected to repeat to [2,3,3]", attend, {key_mask = zeros(2, 5)})
    fails("attention: mask is i32, expected u8", attend, {mask = atomo.zeros({3, 3}, "i32")})
    fails("attention: mask requires a gradient", attend, {mask = atomo.param(zeros(3, 3))})
    fails("MultiheadAttention: unknown option 'mask'", nn.MultiheadAttention(6, 2), zeros(2, 3, 6), nil, nil,
      {mask = zeros(2, 2)})
  end)

  it("recurrent layers", function()
    fails("LSTM: input is [2,3,4], expected [T, N, channels] with input_size 5", nn.LSTM(5, 2), zeros(2, 3, 4))
    fails("GRU: h0 is [1,2,2], expected [1,3,2]", nn.GRU(4, 2), zeros(2, 3, 4), zeros(1, 2, 2))
    fails("GRU: got a third argument, expected the input and h0", nn.GRU(4, 2), zeros(2, 3, 4), nil, zeros(1, 3, 2))
    fails("LSTM: unknown option 'bidirection'", nn.LSTM, 3, 4, {bidirection = true})
    fails("GRU: h0 is [1,2,4], expected [2,2,4]", nn.GRU(3, 4, {bidirectional = true}), zeros(5, 2, 3), zeros(1, 2, 4))
    fails("lstm: input part is [0,1,8], it has no steps", F.lstm, zeros(0, 1, 3), zeros(8, 3), zeros(8, 2), nil, nil,
      zeros(1, 2), zeros(1, 2))
    fails("gru: weight_hh is [8,2], expected [3 H, H]", F.gru, zeros(1, 1, 3), zeros(8, 3), zeros(8, 2), nil, nil,
      zeros(1, 2))
  end)

  it("Concat", function()
    fails("Concat: no entries", nn.Concat, {})
    fails("Concat: entry 2 is a number", nn.Concat, {nn.ReLU(), 3})
  end)
end)

describe("an empty batch passes", function()
  for name, c in pairs {
    LayerNorm = {nn.LayerNorm(3), {0, 3}}, GroupNorm = {nn.GroupNorm(1, 3), {0, 2, 3}}, GELU = {nn.GELU(), {0, 3}},
    AdaptiveAvgPool2d = {nn.AdaptiveAvgPool2d(2), {0, 4, 4, 3}},
    ConvTranspose2d = {nn.ConvTranspose2d(3, 2, 3), {0, 4, 4, 3}},
    MultiheadAttention = {nn.MultiheadAttention(4, 2, {batch_first = true}), {0, 3, 4}},
    LSTM = {nn.LSTM(3, 2, {batch_first = true}), {0, 4, 3}}, GRU = {nn.GRU(3, 2, {batch_first = true}), {0, 4, 3}},
  } do
    it(name, function()
      local x = atomo.param(zeros(c[2]))
      local y = c[1](x)
      assert.equal(0, y:numel())
      y:sum():backward()
      for _, p in ipairs(c[1]:parameters()) do assert.equal(0, p.grad:abs():sum():item()) end
    end)
  end
end)

describe("layers start and describe themselves as PyTorch's:", function()
  it("Embedding's padding row is zero and stays", function()
    local e = nn.Embedding(5, 3, {padding_idx = 2})
    e(labels(2, 2, 1)):sum():backward()
    assert.same({0, 0, 0}, e.weight:select(1, 3):totable())
    assert.same({0, 0, 0}, e.weight.grad:select(1, 3):totable())
    assert.same({1, 1, 1}, e.weight.grad:select(1, 2):totable())
  end)

  it("F.embedding's padding row may be counted from the end", function()
    local w = atomo.param(zeros(3, 1))
    F.embedding(labels(0, 2, 2), w, -1):sum():backward()
    assert.same({{1}, {0}, {0}}, w.grad:totable())
    F.embedding(labels(0, 2, 2), w, -3):sum():backward()
    assert.same({{1}, {0}, {2}}, w.grad:totable())
  end)

  it("bounds of uniform starts", function()
    atomo.manual_seed(1)
    local function largest(t, bound)
      local most = t:detach():abs():max():item()
      assert.is_true(most <= bound and most > 0.9 * bound, ("%g of %g"):format(most, bound))
    end
    largest(nn.LSTM(9, 25).weight_ih_l0, 0.2)
    largest(nn.ConvTranspose2d(9, 4, 5).weight, 0.1)
    local a = nn.MultiheadAttention(16, 4)
    largest(a.in_proj_weight, math.sqrt(6 / 64))
    assert.equal(0, a.out_proj.bias:abs():max():item())
  end)

  it("texts", function()
    assert.equal("LayerNorm((5,), eps=1e-05, elementwise_affine=True)", tostring(nn.LayerNorm(5)))
    assert.equal("GroupNorm(2, 4, eps=1e-05)", tostring(nn.GroupNorm(2, 4)))
    assert.equal("BatchNorm2d(3, eps=1e-05, momentum=None, affine=False)",
      tostring(nn.BatchNorm2d(3, {momentum = false, affine = false})))
    assert.equal("Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, padding_mode=reflect)",
      tostring(nn.Conv2d(3, 4, 3, {padding = "same", padding_mode = "reflect"})))
    assert.equal("Flatten(start_dim=2, end_dim=-1)", tostring(nn.Flatten()))
    assert.equal("Embedding(7, 3, padding_idx=1)", tostring(nn.Embedding(7, 3, {padding_idx = 1})))
    assert.equal("LSTM(3, 4, num_layers=2, batch_first=True)",
      tostring(nn.LSTM(3, 4, {num_layers = 2, batch_first = true})))
    assert.equal("LeakyReLU(negative_slope=0.01)", tostring(nn.LeakyReLU()))
    assert.equal("ConvTranspose2d(3, 4, kernel_size=(2, 2), stride=(2, 2))",
      tostring(nn.ConvTranspose2d(3, 4, 2, {stride = 2})))
  end)
end)
