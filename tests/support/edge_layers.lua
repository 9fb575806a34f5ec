--- Layers of atomo.nn for the cases of tests/golden/edges.lua: {case, function(inputs) that makes the layer, inputs =
-- number of inputs of the layer (default 1), whose gradients are compared}.
local atomo = require "atomo"
local nn = atomo.nn

local M = {}

--- Sets a layer's parameters: {name = tensor}.
local function with(layer, values)
  atomo.no_grad(function()
    for name, v in pairs(values) do layer[name]:copy_(v) end
  end)
  return layer
end

local function plain(class) return function() return nn[class]() end end

--- Makes a layer of the logits alone from a loss layer.
local function loss_of(make)
  return function(_, target)
    local loss = make()
    return function(x) return loss(x, target) end
  end
end

local weight = atomo.tensor {2, 0.5, 1.5}

M.layers = {
  ReLU = {"F.relu", plain "ReLU"},
  LeakyReLU = {"F.leaky_relu", plain "LeakyReLU"},
  GELU = {"F.gelu", plain "GELU"},
  SiLU = {"F.silu", plain "SiLU"},
  Tanh = {"F.tanh", plain "Tanh"},
  Sigmoid = {"F.sigmoid", plain "Sigmoid"},
  ReLU6 = {"F.relu6", plain "ReLU6"},
  SELU = {"F.selu", plain "SELU"},
  ELU = {"F.elu/0.5", function() return nn.ELU(0.5) end},
  Softplus = {"F.softplus/1 5", function() return nn.Softplus(1, 5) end},
  Mish = {"F.mish", plain "Mish"},
  Hardtanh = {"F.hardtanh/-2 2.5", function() return nn.Hardtanh(-2, 2.5) end},
  Hardswish = {"F.hardswish", plain "Hardswish"},
  Hardsigmoid = {"F.hardsigmoid", plain "Hardsigmoid"},
  LogSigmoid = {"F.logsigmoid", plain "LogSigmoid"},
  Identity = {"T.mul/2.5", function()
    local same = nn.Identity()
    return function(x) return same(x) * 2.5 end
  end},
  ModuleList = {"F.silu", function() return nn.ModuleList {nn.SiLU()}[1] end},
  Upsample = {"F.interpolate/bilinear 2", function()
    return nn.Upsample {scale_factor = 2, mode = "bilinear"}
  end},
  Softmax = {"F.softmax/2", plain "Softmax"},
  LogSoftmax = {"F.log_softmax/2", plain "LogSoftmax"},
  Linear = {"F.linear", function(_, w, b) return with(nn.Linear(3, 2), {weight = w, bias = b}) end},
  Conv2d = {"F.conv2d", function(_, w, b) return with(nn.Conv2d(1, 2, 2), {weight = w, bias = b}) end},
  ConvTranspose2d = {"F.conv_transpose2d", function(_, w)
    return with(nn.ConvTranspose2d(1, 2, 2, {stride = 2, bias = false}), {weight = w})
  end},
  BatchNorm1d = {"F.batch_norm", function(_, w, b) return with(nn.BatchNorm1d(4), {weight = w, bias = b}) end},
  BatchNorm2d = {"F.batch_norm", function(_, w, b)
    local layer = with(nn.BatchNorm2d(4), {weight = w, bias = b})
    return function(x) return layer(x:view(x:size(1), 1, 1, 4)):view(x:size(1), 4) end
  end},
  LayerNorm = {"F.layer_norm", function(_, w, b) return with(nn.LayerNorm(4), {weight = w, bias = b}) end},
  GroupNorm = {"F.group_norm", function(_, w, b) return with(nn.GroupNorm(2, 4), {weight = w, bias = b}) end},
  MaxPool2d = {"F.max_pool2d", function() return nn.MaxPool2d(2) end},
  AvgPool2d = {"F.avg_pool2d", function() return nn.AvgPool2d(2) end},
  AdaptiveAvgPool2d = {"F.adaptive_avg_pool2d", function() return nn.AdaptiveAvgPool2d(3) end},
  GlobalAvgPool = {"F.global_avg_pool", plain "GlobalAvgPool"},
  Embedding = {"F.embedding", function(_, w) return with(nn.Embedding(3, 2), {weight = w}) end},
  CrossEntropyLoss = {"F.cross_entropy/weight smooth", loss_of(function()
    return nn.CrossEntropyLoss {weight = weight, label_smoothing = 0.3, reduction = "none"}
  end)},
  NLLLoss = {"F.nll_loss/none", loss_of(function() return nn.NLLLoss {reduction = "none"} end)},
  L1Loss = {"F.l1_loss/none", loss_of(function() return nn.L1Loss {reduction = "none"} end)},
  SmoothL1Loss = {"F.smooth_l1_loss/2.5", loss_of(function()
    return nn.SmoothL1Loss {reduction = "none", beta = 2.5}
  end)},
  HuberLoss = {"F.huber_loss/0.25", loss_of(function() return nn.HuberLoss {reduction = "none", delta = 0.25} end)},
  MSELoss = {"F.mse_loss/none", loss_of(function() return nn.MSELoss {reduction = "none"} end)},
  BCEWithLogitsLoss = {"F.bce_with_logits/none", loss_of(function()
    return nn.BCEWithLogitsLoss {reduction = "none"}
  end)},
  Sequential = {"F.relu", function() return nn.Sequential {nn.ReLU(), nn.ReLU()} end},
  Checkpoint = {"F.silu", function() return nn.Checkpoint(nn.SiLU()) end},
  Residual = {"T.mul/2.5", function() return nn.Residual(function(x) return x * 1.5 end) end},
  Concat = {"F.tanh", function()
    local both = nn.Concat {nn.Tanh(), function(x) return x end}
    return function(x) return both(x:unsqueeze(2)):select(2, 1) end
  end},
  Flatten = {"T.neg", function()
    local flatten = nn.Flatten()
    return function(x) return -flatten(x:view(4, 2, -1)):view(-1) end
  end},
  Dropout = {"T.mul/2.5", function()
    local none = nn.Dropout(0)
    return function(x) return none(x) * 2.5 end
  end},
  Dropout2d = {"T.mul/2.5", function()
    local none = nn.Dropout2d(0)
    return function(x) return none(x:view(1, 1, 1, -1)):view(x:shape()) * 2.5 end
  end},
  LSTM = {"F.lstm", function(_, wi, wh)
    local layer = with(nn.LSTM(2, 1, {bias = false}), {weight_ih_l0 = wi, weight_hh_l0 = wh})
    return function(x) return (layer(x)) end
  end},
  GRU = {"F.gru", function(_, wi, wh)
    local layer = with(nn.GRU(2, 1, {bias = false}), {weight_ih_l0 = wi, weight_hh_l0 = wh})
    return function(x) return (layer(x)) end
  end},
  MultiheadAttention = {"F.scaled_dot_product_attention", function()
    local layer, eye = nn.MultiheadAttention(2, 1, {bias = false, batch_first = true}), atomo.tensor {{1, 0}, {0, 1}}
    with(layer, {in_proj_weight = atomo.cat {eye, eye, eye}})
    with(layer.out_proj, {weight = eye})
    return function(q, k, v) return layer(q, k, v) end
  end, inputs = 3},
}

return M
