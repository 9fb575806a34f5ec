--- Annotations of layers whose classes are made by functions, for editors, help() and the reference. Nothing loads
-- this file.
---@meta
-- luacheck: ignore 212 241

local nn = {}

--- Makes a layer of F.avg_pool2d.
---@param kernel integer|integer[]
---@param opts {stride: any, padding: any, ceil_mode: boolean?, count_include_pad: boolean?, divisor_override: any}?
---@return atomo.Module
---@usage nn.AvgPool2d(2)(x):size(2) --> 4
function nn.AvgPool2d(kernel, opts) end

--- Makes a batch normalisation of inputs [N, channels] or [N, L, channels].
---@param num_features integer
---@param opts table? as of nn.BatchNorm2d
---@return atomo.Module
---@usage nn.BatchNorm1d(3)(atomo.randn(4, 3)):size(2) --> 3
function nn.BatchNorm1d(num_features, opts) end

--- Makes a layer of F.binary_cross_entropy_with_logits(x, target).
---@param opts {weight: atomo.Tensor?, pos_weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Module
---@usage nn.BCEWithLogitsLoss()(atomo.zeros(2), atomo.ones(2)):item() > 0.69 --> true
function nn.BCEWithLogitsLoss(opts) end

--- Makes a layer of F.cross_entropy(logits, labels).
---@param opts {label_smoothing: number?, ignore_index: integer?, weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Module
---@usage nn.CrossEntropyLoss()(atomo.zeros(1, 2), atomo.tensor({1}, "i32")):item() > 0.69 --> true
function nn.CrossEntropyLoss(opts) end

--- Makes a layer that zeroes each element with probability p in training, and scales the rest by 1/(1-p).
---@param p number? default 0.5
---@return atomo.Module
---@usage nn.Dropout(0.1):eval()(x):dim() --> 4
function nn.Dropout(p) end

--- Makes a layer that zeroes each channel of each image with probability p in training, and scales the rest by
--- 1/(1-p).
---@param p number? default 0.5
---@return atomo.Module
---@usage nn.Dropout2d(0.1):eval()(x):dim() --> 4
function nn.Dropout2d(p) end

--- Makes a layer of F.elu.
---@param alpha number? default 1
---@return atomo.Module
---@usage nn.ELU()(atomo.tensor {2}):item() --> 2
function nn.ELU(alpha) end

--- Makes gated recurrent layers: x [T,N,in] -> y [T,N,H]. Dropout is applied between layers.
---@param input_size integer
---@param hidden_size integer
---@param opts {num_layers: integer?, bias: boolean?, batch_first: boolean?, dropout: number?, bidirectional:
--- boolean?}?
---@return atomo.Module
---@usage (nn.GRU(3, 4)(atomo.randn(5, 2, 3))):size(3) --> 4
function nn.GRU(input_size, hidden_size, opts) end

--- Makes a layer of F.hardsigmoid.
---@return atomo.Module
---@usage nn.Hardsigmoid()(atomo.zeros(1)):item() --> 0.5
function nn.Hardsigmoid() end

--- Makes a layer of F.hardswish.
---@return atomo.Module
---@usage nn.Hardswish()(atomo.tensor {5}):item() --> 5
function nn.Hardswish() end

--- Makes a layer of F.hardtanh.
---@param min_val number? default -1
---@param max_val number? default 1
---@return atomo.Module
---@usage nn.Hardtanh()(atomo.tensor {5}):item() --> 1
function nn.Hardtanh(min_val, max_val) end

--- Makes a layer of F.huber_loss(x, target).
---@param opts {delta: number?, reduction: string?}?
---@return atomo.Module
---@usage nn.HuberLoss()(atomo.ones(2), atomo.zeros(2)):item() --> 0.5
function nn.HuberLoss(opts) end

--- Makes a layer that returns its input.
---@return atomo.Module
---@usage nn.Identity()(atomo.ones(1)):item() --> 1
function nn.Identity() end

--- Makes a layer of F.l1_loss(x, target).
---@param opts {reduction: string?}?
---@return atomo.Module
---@usage nn.L1Loss()(atomo.ones(2), atomo.zeros(2)):item() --> 1
function nn.L1Loss(opts) end

--- Makes a layer of F.logsigmoid.
---@return atomo.Module
---@usage nn.LogSigmoid()(atomo.zeros(1)):item() < -0.69 --> true
function nn.LogSigmoid() end

--- Makes a layer of F.log_softmax over a dimension.
---@param dim integer? default -1
---@return atomo.Module
---@usage nn.LogSoftmax()(atomo.zeros(1, 1)):item() --> 0
function nn.LogSoftmax(dim) end

--- Makes long short-term memory layers: x [T,N,in] -> y [T,N,H]. Dropout is applied between layers.
---@param input_size integer
---@param hidden_size integer
---@param opts {num_layers: integer?, bias: boolean?, batch_first: boolean?, dropout: number?, bidirectional:
--- boolean?}?
---@return atomo.Module
---@usage (nn.LSTM(3, 4)(atomo.randn(5, 2, 3))):size(3) --> 4
function nn.LSTM(input_size, hidden_size, opts) end

--- Makes a layer of F.max_pool2d.
---@param kernel integer|integer[]
---@param opts {stride: any, padding: any, dilation: any, ceil_mode: boolean?, return_indices: boolean?}?
---@return atomo.Module
---@usage nn.MaxPool2d(2)(x):size(2) --> 4
function nn.MaxPool2d(kernel, opts) end

--- Makes a layer of F.mish.
---@return atomo.Module
---@usage nn.Mish()(atomo.zeros(1)):item() --> 0
function nn.Mish() end

--- Makes a layer of F.mse_loss(x, target).
---@param opts {reduction: string?}?
---@return atomo.Module
---@usage nn.MSELoss()(atomo.ones(2), atomo.zeros(2)):item() --> 1
function nn.MSELoss(opts) end

--- Makes a layer of F.nll_loss(logp, labels).
---@param opts {ignore_index: integer?, weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Module
---@usage nn.NLLLoss()(atomo.zeros(1, 2), atomo.tensor({1}, "i32")):item() == 0 --> true
function nn.NLLLoss(opts) end

--- Makes a layer of F.relu.
---@return atomo.Module
---@usage nn.ReLU()(atomo.tensor {-1}):item() --> 0
function nn.ReLU() end

--- Makes a layer of F.relu6.
---@return atomo.Module
---@usage nn.ReLU6()(atomo.tensor {7}):item() --> 6
function nn.ReLU6() end

--- Makes a layer of F.selu.
---@return atomo.Module
---@usage nn.SELU()(atomo.zeros(1)):item() --> 0
function nn.SELU() end

--- Makes a layer of F.sigmoid.
---@return atomo.Module
---@usage nn.Sigmoid()(atomo.zeros(1)):item() --> 0.5
function nn.Sigmoid() end

--- Makes a layer of F.silu.
---@return atomo.Module
---@usage nn.SiLU()(atomo.zeros(1)):item() --> 0
function nn.SiLU() end

--- Makes a layer of F.smooth_l1_loss(x, target).
---@param opts {beta: number?, reduction: string?}?
---@return atomo.Module
---@usage nn.SmoothL1Loss()(atomo.ones(2), atomo.zeros(2)):item() --> 0.5
function nn.SmoothL1Loss(opts) end

--- Makes a layer of F.softmax over a dimension.
---@param dim integer? default -1
---@return atomo.Module
---@usage nn.Softmax()(atomo.zeros(1, 2)):get(1, 1) --> 0.5
function nn.Softmax(dim) end

--- Makes a layer of F.softplus.
---@param beta number? default 1
---@param threshold number? default 20
---@return atomo.Module
---@usage nn.Softplus()(atomo.zeros(1)):item() > 0.69 --> true
function nn.Softplus(beta, threshold) end

--- Makes a layer of F.tanh.
---@return atomo.Module
---@usage nn.Tanh()(atomo.zeros(1)):item() --> 0
function nn.Tanh() end
