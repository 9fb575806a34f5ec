--- A character-level transformer as GPT-2: pre-norm blocks, causal attention, GELU.
--   require("models.transformer").transformer{vocab = 96, width = 128, layers = 4, heads = 4, length = 128}
-- Input i32 [N, T] with T <= length; logits [N, T, vocab] for the next character.
local atomo = require "atomo"
local nn = atomo.nn

local Block = nn.Module:extend "TransformerBlock"

function Block:init(width, heads, dropout)
  self.norm1 = nn.LayerNorm(width)
  self.attention = nn.MultiheadAttention(width, heads, {batch_first = true, causal = true, dropout = dropout})
  self.norm2 = nn.LayerNorm(width)
  self.mlp = nn.Sequential {nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)}
  self.dropout = nn.Dropout(dropout)
end

function Block:forward(x)
  x = x + self.dropout(self.attention(self.norm1(x)))
  return x + self.mlp(self.norm2(x))
end

local Transformer = nn.Module:extend "Transformer"

function Transformer:init(o)
  local width, dropout = o.width or 128, o.dropout or 0
  self.length = o.length or 128
  self.tokens = nn.Embedding(o.vocab, width)
  self.positions = nn.Embedding(self.length, width)
  self.dropout = nn.Dropout(dropout)
  self.blocks = nn.Sequential {}
  for _ = 1, o.layers or 4 do
    local block = Block(width, o.heads or 4, dropout)
    self.blocks:add(o.checkpoint and nn.Checkpoint(block) or block)
  end
  self.norm = nn.LayerNorm(width)
  self.head = nn.Linear(width, o.vocab, {bias = false})
  atomo.no_grad(function() -- small initial values, as in GPT-2, so that the first loss is about log(vocab)
    for _, p in ipairs {self.tokens.weight, self.positions.weight, self.head.weight} do p:normal_(0, 0.02) end
  end)
end

function Transformer:forward(x)
  local steps = x:size(2)
  if steps > self.length then
    error(("transformer: input has %d positions, the model %d"):format(steps, self.length), 2)
  end
  local y = self.tokens(x) + self.positions(atomo.arange(steps):int())
  return self.head(self.norm(self.blocks(self.dropout(y))))
end

--- opts: vocab, width = 128, layers = 4, heads = 4, length = 128, dropout = 0, checkpoint = false.
return {transformer = function(opts) return Transformer(opts) end}
