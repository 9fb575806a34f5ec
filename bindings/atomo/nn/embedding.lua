--- nn.Embedding: a table of vectors, looked up by index.
local F = require "atomo.nn.functional"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Module = require("atomo.nn.module").Module

---@class atomo.Embedding: atomo.Module
---@field weight atomo.Tensor [num_embeddings, embedding_dim], initially standard normal
local Embedding = Module:extend "Embedding"

--- nn.Embedding(num_embeddings, embedding_dim, {padding_idx=nil}): i32 [...] of 0-based indices -> [...,
--- embedding_dim]. Row padding_idx (negative: from the end) is initially zero and gets no gradient.
---@param num_embeddings integer
---@param embedding_dim integer
---@param opts {padding_idx: integer?}?
---@usage nn.Embedding(10, 4)(atomo.tensor({1, 2}, "i32")):size(2) --> 4
function Embedding:init(num_embeddings, embedding_dim, opts)
  opts = opts == nil and {} or opts
  window.check_options("Embedding", opts, {padding_idx = true})
  num_embeddings = check.count("Embedding", "num_embeddings", num_embeddings)
  self.num_embeddings = num_embeddings
  embedding_dim = check.count("Embedding", "embedding_dim", embedding_dim)
  self.embedding_dim = embedding_dim
  self.padding_idx = opts.padding_idx
  if self.padding_idx then
    self.padding_idx = check.count("Embedding", "padding_idx", self.padding_idx, -num_embeddings)
    if self.padding_idx < 0 then self.padding_idx = num_embeddings + self.padding_idx end
    check.within("Embedding", "padding_idx", self.padding_idx, num_embeddings - 1)
  end
  self.weight = parameter.new({num_embeddings, embedding_dim}, function(w)
    w:normal_(0, 1)
    if self.padding_idx then w:select(1, self.padding_idx + 1):zero_() end
  end)
end

function Embedding:forward(index) return F.embedding(index, self.weight, self.padding_idx) end

function Embedding:describe()
  local text = ("%d, %d"):format(self.num_embeddings, self.embedding_dim)
  return self.padding_idx and ("%s, padding_idx=%d"):format(text, self.padding_idx) or text
end

return {Embedding = Embedding}
