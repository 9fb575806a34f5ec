--- An LSTM language model over characters: embedding, stacked LSTM, linear.
--   require("models.lstm").lstm{vocab = 96, width = 256, layers = 2}
-- Input i32 [N, T]; logits [N, T, vocab] for the next character. Every sequence starts from zero states.
local nn = require("atomo").nn

local Model = nn.Module:extend "LSTMModel"

function Model:init(o)
  local width, dropout, layers = o.width or 256, o.dropout or 0, o.layers or 2
  self.tokens = nn.Embedding(o.vocab, width)
  self.dropout = nn.Dropout(dropout)
  self.lstm = nn.LSTM(width, width, {num_layers = layers, batch_first = true,
    dropout = layers > 1 and dropout or 0})
  self.head = nn.Linear(width, o.vocab)
end

function Model:forward(x)
  return self.head(self.dropout((self.lstm(self.dropout(self.tokens(x))))))
end

--- opts: vocab, width = 256, layers = 2, dropout = 0.
return {lstm = function(opts) return Model(opts) end}
