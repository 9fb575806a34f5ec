-- Names that users of PyTorch and Torch try first: each exists, or is answered with what to write. None is nil, so that
-- the first error of a ported script names the line to change and its new form.
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F
local t = atomo.ones(2, 2)

local holders = {atomo = atomo, nn = nn, F = F, t = t, data = atomo.data, optim = atomo.optim,
  schedule = atomo.schedule}

local names = {
  atomo = [[tensor as_tensor from_numpy zeros ones empty full eye arange range linspace logspace rand randn randint
    randperm zeros_like ones_like empty_like full_like rand_like randn_like cat concat stack vstack hstack split chunk
    where gather nonzero masked_select index_select unsqueeze squeeze transpose permute reshape flatten sum mean std var
    max min amax amin argmax argmin topk sort argsort cumsum cumprod prod norm exp log sqrt abs clamp sigmoid tanh relu
    softmax matmul mm bmm mv dot outer einsum allclose equal isnan isinf isfinite logical_and logical_or logical_not eq
    ne lt gt le ge pow sin cos round floor ceil sign flip roll tile repeat_interleave meshgrid diag diagonal trace tril
    triu lerp addmm baddbmm count_nonzero take_along_dim unbind save load no_grad enable_grad set_grad_enabled
    manual_seed is_tensor numel float32 int64 long bool device cuda svd linalg fft distributed utils optim nn]],
  t = [[size shape dim ndim numel dtype device item tolist numpy cpu cuda to type float double half int long bool view
    reshape flatten permute transpose t T mT contiguous clone detach squeeze unsqueeze expand expand_as view_as repeat
    narrow select index_select gather scatter scatter_ scatter_add scatter_add_ index_add_ index_fill masked_fill
    masked_fill_ masked_select nonzero where add sub mul div add_ sub_ mul_ div_ addcmul addcmul_ addcdiv addcdiv_ lerp
    lerp_ addmm baddbmm mm bmm matmul dot pow exp log log1p log2 sqrt rsqrt abs neg clamp clamp_ clamp_min clamp_max
    sigmoid tanh relu softmax log_softmax sum mean std var max min amax amin argmax argmin sort topk cumsum cumprod prod
    norm any all equal allclose isclose isnan eq ne lt gt zero_ fill_ copy_ normal_ uniform_ requires_grad_ backward
    unbind chunk split unfold roll flip repeat_interleave diag diagonal trace tril triu outer unique bincount median
    nan_to_num count_nonzero take_along_dim is_contiguous data]],
  nn = [[Module Sequential ModuleList ModuleDict ParameterList Parameter Identity Linear Conv1d Conv2d Conv3d
    ConvTranspose2d BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm LayerNorm GroupNorm InstanceNorm2d RMSNorm ReLU
    ReLU6 LeakyReLU PReLU ELU SELU CELU GELU SiLU Mish Softplus Softsign Tanh Sigmoid LogSigmoid Hardtanh Hardswish
    Hardsigmoid Softmax Softmax2d LogSoftmax GLU Threshold MaxPool1d MaxPool2d AvgPool2d AdaptiveAvgPool2d
    AdaptiveMaxPool2d Upsample UpsamplingNearest2d PixelShuffle Flatten Unflatten Dropout Dropout2d AlphaDropout
    Embedding EmbeddingBag LSTM GRU RNN LSTMCell Transformer TransformerEncoderLayer MultiheadAttention ZeroPad2d
    ReflectionPad2d ConstantPad2d Bilinear CosineSimilarity CrossEntropyLoss NLLLoss MSELoss L1Loss SmoothL1Loss
    HuberLoss BCELoss BCEWithLogitsLoss KLDivLoss TripletMarginLoss CTCLoss DataParallel init utils functional
    SpatialConvolution SpatialMaxPooling View ClassNLLCriterion MSECriterion]],
  data = "DataLoader Dataset TensorDataset random_split ImageFolder MNIST CIFAR10 loader open",
  optim = "SGD Adam AdamW Adagrad Adadelta RMSprop NAdam LBFGS lr_scheduler sgd adam",
  schedule = [[StepLR MultiStepLR ExponentialLR CosineAnnealingLR CosineAnnealingWarmRestarts OneCycleLR CyclicLR
    LambdaLR LinearLR PolynomialLR ReduceLROnPlateau SequentialLR step cosine]],
  F = [[relu relu_ relu6 leaky_relu prelu elu selu celu gelu silu mish softplus softsign tanh sigmoid logsigmoid
    hardtanh
    hardswish hardsigmoid softmax log_softmax softmin gumbel_softmax glu linear conv1d conv2d conv3d conv_transpose2d
    max_pool1d max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d pad interpolate upsample grid_sample
    pixel_shuffle unfold one_hot embedding normalize cosine_similarity pairwise_distance layer_norm group_norm
    batch_norm instance_norm dropout dropout2d cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss
    binary_cross_entropy binary_cross_entropy_with_logits kl_div triplet_margin_loss scaled_dot_product_attention]],
}

--- Returns "exists", or the error's text; nil for a name that is nil.
local function answer(holder, name)
  local ok, value = pcall(function() return holder[name] end)
  if not ok then return tostring(value) end
  return value ~= nil and "exists" or nil
end

describe("of the names that are tried first,", function()
  for holder, list in pairs(names) do
    it(("each of %s exists or is answered"):format(holder), function()
      local faults, count, missing = {}, 0, 0
      for name in list:gmatch "%S+" do
        local text = answer(holders[holder], name)
        count = count + 1
        if text ~= "exists" then
          missing = missing + 1
          local told = text and (text:find("; write ", 1, true) or text:find("did you mean", 1, true) or
            text:find("; nothing here does the same", 1, true) or text:find("is a method of tensors", 1, true))
          if not told then faults[#faults + 1] = name end
        end
      end
      assert.same({}, faults)
      assert(count > 8 and missing < count, count)
    end)
  end

  it("the ones that are answered do not exist, and the others are not answered", function()
    local instead = require "atomo.core.instead"
    for what, list in pairs(instead) do
      local holder = what == "tensor" and atomo.Tensor or atomo[what == "atomo" and "Tensor" or what]
      if what == "atomo" then holder = atomo end
      for name in pairs(list) do assert.is_nil(rawget(holder, name), what .. "." .. name) end
    end
  end)

  it("answers name things that exist", function()
    local instead = require "atomo.core.instead"
    local faults = {}
    for what, list in pairs(instead) do
      for name, text in pairs(list) do
        local function exists(of, word)
          if rawget(of, word) == nil and not pcall(function() return assert(of[word]) end) then
            faults[#faults + 1] = ("%s.%s: %s"):format(what, name, word)
          end
        end
        for word in text:gmatch "%f[%w]nn%.(%u%w*)" do exists(nn, word) end
        for word in text:gmatch "%f[%w]F%.([%w_]+)" do exists(F, word) end
        for word, sub in text:gmatch "%f[%w]atomo%.([%w_]+)%.?([%w_]*)" do
          exists(atomo, word)
          if sub ~= "" then exists(atomo[word], sub) end
        end
        for word in text:gmatch ":([%a_][%w_]*)%(" do
          if not word:find "^parameters$" then exists(atomo.Tensor, word) end
        end
      end
    end
    assert.same({}, faults)
  end)

  it("what has no equal is said to have none, with what serves a like purpose", function()
    local function said(holder, name) return tostring(select(2, pcall(function() return holder[name] end))) end
    assert.matches("nn.LocalResponseNorm: there is no such name; nothing here does the same; " ..
      "nn.BatchNorm2d%(channels%) serves a like purpose$", said(nn, "LocalResponseNorm"))
    for name in ("RNN SyncBatchNorm AlphaDropout RReLU TransformerEncoderLayer"):gmatch "%S+" do
      assert.matches("nothing here does the same; .* serves a like purpose$", said(nn, name))
    end
    for name in ("RMSprop Adagrad NAdam LBFGS"):gmatch "%S+" do
      assert.matches("nothing here does the same; .* serves a like purpose$", said(atomo.optim, name))
    end
    assert.matches("F.conv3d: there is no such name; nothing here does the same$", said(F, "conv3d"))
    assert.matches("tensor.erf: a tensor has no such name; nothing here does the same$", said(t, "erf"))
  end)

  it("methods of PyTorch's and Torch's tensors and modules are answered where they are called", function()
    local calls = {
      t = [[resize_ resize resizeAs storage nElement nDimension isContiguous apply apply_ map bernoulli_ ones_like
        zeros_like new new_zeros addmv det pinverse cholesky solve quantile kthvalue histc searchsorted take put_
        index_fill_ index_copy_ masked_scatter_ rot90 diff cummax erf atan2 lgamma frac dist cross kron register_hook
        retain_grad stride is_floating_point share_memory_ t_ index is_cuda grad_fn byte sinh cosh logcumsumexp renorm
        cmul cdiv csub copy zero idiv squeeze_ unsqueeze_ transpose_ reshape_as nbytes]],
      net = "to reset_parameters backward listModules gradWeight get_parameter cuda clone getParameters",
      mpi = "rank size init Get_rank finalize",
    }
    local of = {t = t, net = nn.Linear(2, 2), mpi = atomo.mpi}
    for holder, list in pairs(calls) do
      for name in list:gmatch "%S+" do
        local ok, text = pcall(function() return of[holder][name](of[holder]) end)
        assert(not ok and text:find "no such name", ("%s:%s: %s"):format(holder, name, tostring(text)))
        assert.is_nil(text:find("attempt to", 1, true), text)
      end
    end
    local _, text = pcall(atomo.Tensor, 3, 4)
    assert.matches("atomo.Tensor%(...%): it is the class of tensors, and makes none; write atomo.zeros%(3, 4%)", text)
  end)

  it("the advice computes what its name does in PyTorch", function()
    local a, b = atomo.tensor {{1, -2}, {3, 0.5}}, atomo.tensor {{2, 1}, {-1, 4}}
    local cases = { -- form, PyTorch's result
      {(a - b):norm(), 6.1846585}, {a:narrow(2, 2, 1) - a:narrow(2, 1, 1), {{-3}, {-2.5}}},
      {a:transpose(1, 2):flip(1), {{-2, 0.5}, {1, 3}}}, {a:exp():cumsum(2):log(), {{1, 1.0485873}, {3, 3.0788884}}},
      {(a:exp() - (-a):exp()) / 2, {{1.1752012, -3.6268604}, {10.0178747, 0.5210953}}},
      {a - a:trunc(), {{0, 0}, {0, 0.5}}}, {a:div(b):trunc(), {{0, -2}, {-3, 0}}},
      {a:relu() - 0.25 * (-a):relu(), {{1, -0.5}, {3, 0.5}}}, -- prelu
      {a * (2 / a:norm(2, 2, true)):clamp_max(1), {{0.8944272, -1.7888544}, {1.9727878, 0.3287980}}}, -- renorm, by rows
      {atomo.ones(2, 2):tril():nonzero(), {{1, 1}, {2, 1}, {2, 2}}},
    }
    for i, case in ipairs(cases) do
      local want = type(case[2]) == "number" and atomo.full({1}, case[2]) or atomo.tensor(case[2])
      assert(case[1]:to("f32"):view(want:shape()):allclose(want, {rtol = 1e-5, atol = 1e-5}), i)
    end
  end)

  it("options of other libraries are answered with ours", function()
    local w = atomo.param(t:clone())
    local set = atomo.data.synthetic {train = 4, test = 4}.train
    for _, case in ipairs {
      {atomo.optim.sgd, {params = {w}, learningRate = 1}, "'learningRate', did you mean 'lr'"},
      {atomo.optim.adam, {params = {w}, learning_rate = 1}, "'learning_rate', did you mean 'lr'"},
      {atomo.optim.sgd, {params = {w}, lr = 1, weightDecay = 1}, "did you mean 'weight_decay'"},
      {atomo.data.loader, {set = set, batch_size = 2}, "'batch_size', did you mean 'batch'"},
      {atomo.data.loader, {dataset = set}, "did you mean 'set'"},
      {atomo.data.loader, {set, batch = 2}, "options are named: name = value"},
      {atomo.data.loader, set, "got a data set, expected options: atomo.data.loader{set = set, batch = 64}"},
      {atomo.train, {net = w}, "did you mean 'model'"}, {atomo.train, {criterion = w}, "did you mean 'loss'"},
      {atomo.train, {num_epochs = 2}, "did you mean 'epochs'"}, {atomo.train, {loader = 2}, "did you mean 'data'"},
    } do
      local ok, text = pcall(case[1], case[2])
      assert(not ok and text:find(case[3], 1, true), case[3] .. ": " .. tostring(text))
    end
  end)

  it("an answer is the whole form", function()
    local function said(fn) return tostring(select(2, pcall(fn))) end
    assert.matches("names_people_try_spec.lua:%d+: nn.Conv1d: there is no such name; write nn.Conv2d%(inputs, " ..
      "outputs, {1, k}%) on x:unsqueeze%(2%), %[N,1,L,C%]", said(function() return nn.Conv1d(3, 4, 5) end))
    assert.matches("F.binary_cross_entropy: .*write F.binary_cross_entropy_with_logits", said(function()
      return F.binary_cross_entropy(t, t)
    end))
    assert.matches("atomo.bmm: there is no such name; write t:matmul%(u%)", said(function() return atomo.bmm(t, t) end))
    assert.matches("atomo.outer: .*method of tensors: t:outer", said(function() return atomo.outer(t, t) end))
  end)
end)

describe("what the answers say gives what was asked for:", function()
  local x = atomo.tensor {{0.5, -2, 3}, {1, 0.25, -0.75}}
  local function near(a, b) assert.is_true(a:allclose(b, {rtol = 1e-5, atol = 1e-6})) end

  it("inverse, median, vstack, bincount, RMSNorm, GLU", function()
    local m = atomo.tensor {{2, 1}, {1, 3}}
    local u, s, vt = atomo.svd(m)
    near((vt:t() / s):matmul(u:t()):matmul(m), atomo.eye(2))
    near(atomo.zeros(3):index_add_(1, atomo.tensor({1, 3, 3}, "i32"), atomo.ones(3)), atomo.tensor {1, 0, 2})
    near((x / (x:square():mean(-1, true) + 0):sqrt()):square():mean(-1), atomo.ones(2))
    local h = atomo.ones(2, 4):chunk(2, -1)
    near(h[1] * h[2]:sigmoid(), atomo.full({2, 2}, 1 / (1 + math.exp(-1))))
    near(atomo.cat({x, x}, 1):narrow(1, 3, 2), x)
  end)

  it("a convolution of sequences by one of images of height 1", function()
    local sequences = atomo.randn(2, 7, 3) -- [N,L,C]
    local w = atomo.randn(4, 1, 3, 3)
    local y = F.conv2d(sequences:unsqueeze(2), w):squeeze(2)
    assert.same({2, 5, 4}, y:shape())
    local by_hand = (sequences:narrow(2, 2, 3) * w:select(1, 2):select(1, 1)):sum(3):sum(2)
    near(y:select(3, 2):select(2, 2), by_hand)
  end)
end)
