--- GPT-2 [Radford et al. 2019]: pre-norm blocks, learned positions, GELU by tanh, a head that shares the embedding's
-- weight. The defaults are GPT-2 small's, 124,439,808 parameters.
--   require("models.gpt2").gpt2{vocab = 50257, width = 768, layers = 12, heads = 12, length = 1024}
-- Input i32 [N, T] with T <= length; logits [N, T, vocab] for the next token. For training, {logits = false} and
-- model:objective(): logits are then computed in blocks and never stored.
--
-- The tensors' names are those of PyTorch's GPT-2, so that atomo.torch.load reads its checkpoints (of GPT2Model and
-- GPT2LMHeadModel). Their projections store the weight as [in, out].
local atomo = require "atomo"
local nn, F = atomo.nn, atomo.F

local Projection = nn.Linear:extend "Projection"
Projection.torch_layouts = {weight = "transposed"}

--- Makes a projection with GPT-2's initial values.
local function projection(from, to, deviation)
  local layer = Projection(from, to)
  atomo.no_grad(function()
    layer.weight:normal_(0, deviation)
    layer.bias:zero_()
  end)
  return layer
end

local Attention = nn.Module:extend "Attention"

function Attention:init(o)
  self.heads, self.dropout = o.heads, o.dropout
  self.c_attn = projection(o.width, 3 * o.width, 0.02)
  self.c_proj = projection(o.width, o.width, o.residual)
end

function Attention:forward(x)
  local opts = {heads = self.heads, causal = true, dropout = self.training and self.dropout or 0}
  return self.c_proj(F.self_attention(self.c_attn(x), opts))
end

local Mlp = nn.Module:extend "Mlp"

function Mlp:init(o)
  self.c_fc = projection(o.width, 4 * o.width, 0.02)
  self.c_proj = projection(4 * o.width, o.width, o.residual)
end

function Mlp:forward(x) return self.c_proj(F.gelu(self.c_fc(x), "tanh")) end

local Block = nn.Module:extend "Gpt2Block"

function Block:init(o)
  self.ln_1, self.attn = nn.LayerNorm(o.width), Attention(o)
  self.ln_2, self.mlp = nn.LayerNorm(o.width), Mlp(o)
  self.dropout = nn.Dropout(o.dropout)
end

function Block:forward(x)
  x = x + self.dropout(self.attn(self.ln_1(x)))
  return x + self.dropout(self.mlp(self.ln_2(x)))
end

--- The head: a linear layer with the embedding's weight.
local Head = nn.Module:extend "Head"

function Head:init(weight) self.weight = weight end

function Head:forward(x) return F.linear(x, self.weight) end

local Gpt2 = nn.Module:extend "Gpt2"

function Gpt2:init(o)
  self.length, self.gives_logits = o.length, o.logits
  self.wte, self.wpe = nn.Embedding(o.vocab, o.width), nn.Embedding(o.length, o.width)
  self.drop = nn.Dropout(o.dropout)
  self.h = nn.Sequential {}
  for _ = 1, o.layers do
    local block = Block(o)
    self.h:add(o.checkpoint and nn.Checkpoint(block) or block)
  end
  self.ln_f = nn.LayerNorm(o.width)
  atomo.no_grad(function()
    self.wte.weight:normal_(0, 0.02)
    self.wpe.weight:normal_(0, 0.02)
  end)
  self.lm_head = Head(self.wte.weight)
end

--- Returns the name here of a tensor in PyTorch's file; nil for the masks that old files have.
function Gpt2.torch_name(name)
  if name:find "%.attn%.bias$" or name:find "%.attn%.masked_bias$" then return nil end
  return (name:gsub("^transformer%.", ""))
end

function Gpt2:forward(x)
  local steps = x:size(2)
  if steps > self.length then
    error(("gpt2: input has %d positions, the model %d"):format(steps, self.length), 2)
  end
  local y = self.drop(self.wte(x) + self.wpe(atomo.arange(steps):int()))
  y = self.ln_f(self.h(y))
  return self.gives_logits and self.lm_head(y) or y
end

--- Returns the functions loss(features, labels) and accuracy(features, labels) for atomo.train and a model with
--- {logits = false}, whose features [N, T, width] are the head's input. accuracy is that of the last loss.
function Gpt2:objective()
  local accuracy, judged
  local function loss(features, labels)
    local value
    value, accuracy = F.linear_cross_entropy(features, self.lm_head.weight, labels)
    judged = value.count
    return value
  end
  return loss, function() return accuracy, judged end
end

--- opts: vocab = 50257, width = 768, layers = 12, heads = 12, length = 1024, dropout = 0, checkpoint = false, logits =
--- true.
local function gpt2(opts)
  opts = opts or {}
  local o = {vocab = 50257, width = 768, layers = 12, heads = 12, length = 1024, dropout = 0, checkpoint = false,
    logits = true}
  for name, value in pairs(opts) do
    if o[name] == nil then error(("gpt2: unknown option '%s'"):format(tostring(name)), 2) end
    o[name] = value
  end
  if o.width % o.heads ~= 0 then error(("gpt2: %d heads do not divide width %d"):format(o.heads, o.width), 2) end
  o.residual = 0.02 / math.sqrt(2 * o.layers) -- so that the sum of the blocks does not grow with their number
  return Gpt2(o)
end

return {gpt2 = gpt2}
