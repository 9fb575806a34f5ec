--- Annotations of functions of atomo.F that other functions make, for editors, help() and the reference. Nothing
-- loads this file.
---@meta
-- luacheck: ignore 212 241

local F = {}

--- Another name of F.binary_cross_entropy_with_logits.
---@param x atomo.Tensor logits
---@param target atomo.Tensor probabilities, of x's shape
---@param opts {weight: atomo.Tensor?, pos_weight: atomo.Tensor?, reduction: string?}?
---@return atomo.Tensor
---@usage F.bce_with_logits(atomo.zeros(2), atomo.ones(2)):item() > 0.69 --> true
function F.bce_with_logits(x, target, opts) end

--- Returns the mean over all positions: [N,H,W,C] -> [N,C].
---@param x atomo.Tensor [N,H,W,C]
---@return atomo.Tensor
---@usage F.global_avg_pool(x):size(2) --> 3
function F.global_avg_pool(x) end

--- Returns relu6(x + 3) / 6.
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.hardsigmoid(atomo.zeros(1)):item() --> 0.5
function F.hardsigmoid(x) end

--- Returns x relu6(x + 3) / 6.
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.hardswish(atomo.tensor {5}):item() --> 5
function F.hardswish(x) end

--- Returns x - log sum exp(x) over a dimension.
---@param x atomo.Tensor
---@param dim integer? default: the last
---@return atomo.Tensor
---@usage F.log_softmax(atomo.zeros(1, 1)):item() --> 0
function F.log_softmax(x, dim) end

--- Returns x tanh(softplus(x)).
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.mish(atomo.zeros(1)):item() --> 0
function F.mish(x) end

--- Returns max(x, 0).
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.relu(atomo.tensor {-1}):item() --> 0
function F.relu(x) end

--- Returns 1 / (1 + e^-x).
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.sigmoid(atomo.zeros(1)):item() --> 0.5
function F.sigmoid(x) end

--- Returns x sigmoid(x).
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.silu(atomo.zeros(1)):item() --> 0
function F.silu(x) end

--- Returns exp(x) / sum exp(x) over a dimension.
---@param x atomo.Tensor
---@param dim integer? default: the last
---@return atomo.Tensor
---@usage F.softmax(atomo.zeros(1, 2)):get(1, 1) --> 0.5
function F.softmax(x, dim) end

--- Returns the hyperbolic tangent of every element.
---@param x atomo.Tensor
---@return atomo.Tensor
---@usage F.tanh(atomo.zeros(1)):item() --> 0
function F.tanh(x) end
