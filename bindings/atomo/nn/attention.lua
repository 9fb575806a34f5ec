--- nn.MultiheadAttention [Vaswani et al. 2017] with PyTorch's parameters and initial values.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local F = require "atomo.nn.functional"
local O = require "atomo.tensor.check_options"
local init = require "atomo.nn.initial"
local parameter = require "atomo.nn.parameter"
local check = require "atomo.nn.functional.check"
local window = require "atomo.nn.functional.window"
local Linear = require("atomo.nn.linear").Linear
local Module = require("atomo.nn.module").Module

---@class atomo.MultiheadAttention: atomo.Module
---@field in_proj_weight atomo.Tensor? [3 embed_dim, embed_dim]: query, key, value. With kdim or vdim, instead:
---@field q_proj_weight atomo.Tensor?  [embed_dim, embed_dim]
---@field k_proj_weight atomo.Tensor?  [embed_dim, kdim]
---@field v_proj_weight atomo.Tensor?  [embed_dim, vdim]
---@field in_proj_bias atomo.Tensor?   [3 embed_dim]
local MultiheadAttention = Module:extend "MultiheadAttention"

local parts = {"q_proj_weight", "k_proj_weight", "v_proj_weight"} -- used if kdim or vdim differs from embed_dim
local no_masks, mask_names = {}, {attn_mask = true, key_padding_mask = true}
local known = {dropout = O.number(0, 1), bias = O.flag, batch_first = O.flag, causal = O.flag, kdim = true,
  vdim = true}

--- nn.MultiheadAttention(embed_dim, num_heads, {dropout=0, bias=true, batch_first=false, causal=false, kdim=embed_dim,
--- vdim=embed_dim}). Sequences are [T, N, embed_dim], or with batch_first [N, T, embed_dim]; keys and values have kdim
--- and vdim channels. causal: position t attends to 1 to t. Memory grows with T, not T x T, so attention weights are
--- not returned.
---@param embed_dim integer
---@param num_heads integer a divisor of embed_dim
---@param opts table?
---@usage local s = atomo.randn(5, 2, 8) nn.MultiHeadAttention(8, 2)(s, s, s)
function MultiheadAttention:init(embed_dim, num_heads, opts)
  opts = opts == nil and {} or opts
  window.check_options("MultiheadAttention", opts, known)
  embed_dim = check.count("MultiheadAttention", "embed_dim", embed_dim)
  self.embed_dim = embed_dim
  num_heads = check.count("MultiheadAttention", "num_heads", num_heads)
  self.num_heads = num_heads
  if embed_dim % num_heads ~= 0 then
    f.raise(("MultiheadAttention: %d heads do not divide embed_dim %d"):format(num_heads, embed_dim))
  end
  self.dropout = F.check_dropout("MultiheadAttention", opts.dropout or 0)
  self.batch_first, self.causal = opts.batch_first or false, opts.causal or false
  self.kdim = check.count("MultiheadAttention", "kdim", opts.kdim or embed_dim)
  self.vdim = check.count("MultiheadAttention", "vdim", opts.vdim or embed_dim)
  if self.kdim == embed_dim and self.vdim == embed_dim then
    self.in_proj_weight = parameter.new({3 * embed_dim, embed_dim}, init.xavier_uniform_)
  else
    for i, width in ipairs {embed_dim, self.kdim, self.vdim} do
      self[parts[i]] = parameter.new({embed_dim, width}, init.xavier_uniform_)
    end
  end
  if opts.bias ~= false then
    self.in_proj_bias = parameter.new({3 * embed_dim}, parameter.zero)
  end
  self.out_proj = Linear(embed_dim, embed_dim, {bias = opts.bias})
  if self.out_proj.bias then self.out_proj.bias:detach():zero_() end
end

--- Returns the input projection of x to the query (i = 1), key (2) or value (3).
local function project(self, x, i)
  local e, b, w = self.embed_dim, self.in_proj_bias, self[parts[i]]
  w = w or self.in_proj_weight:narrow(1, (i - 1) * e + 1, e)
  return F.linear(x, w, b and b:narrow(1, (i - 1) * e + 1, e))
end

local function expect(self, t, name, width)
  T.expect(t, "MultiheadAttention: " .. name, "f32")
  if t:dim() ~= 3 or t:size(3) ~= width then
    f.raise(("MultiheadAttention: %s is %s, expected %s with %d channels"):format(name, T.shape_text(t),
      self.batch_first and "[N, T, C]" or "[T, N, C]", width))
  end
end

--- Attention of query to key and value, returned in query's shape. Without value, key is also the value; without both,
--- self-attention. masks, as in PyTorch: attn_mask [T, S] or [N, T, S] and key_padding_mask [N, S], u8 (1 hides a key)
--- or f32 (added to the scores).
---@param masks {attn_mask: atomo.Tensor?, key_padding_mask: atomo.Tensor?}?
function MultiheadAttention:forward(query, key, value, masks)
  masks = masks or no_masks
  window.check_options("MultiheadAttention", masks, mask_names)
  local opts = {heads = self.num_heads, causal = self.causal, dropout = self.training and self.dropout or 0,
    mask = masks.attn_mask, key_mask = masks.key_padding_mask}
  local function rows(t) return self.batch_first and t or t:transpose(1, 2) end
  expect(self, query, "query", self.embed_dim)
  local y
  if key == nil and value == nil and self.in_proj_weight then
    y = F.self_attention(rows(F.linear(query, self.in_proj_weight, self.in_proj_bias)), opts)
  else
    key = key or query
    if value == nil then value = key end
    expect(self, key, "key", self.kdim)
    expect(self, value, "value", self.vdim)
    y = F.scaled_dot_product_attention(rows(project(self, query, 1)), rows(project(self, key, 2)),
      rows(project(self, value, 3)), opts)
  end
  return self.out_proj(rows(y))
end

return {MultiheadAttention = MultiheadAttention, MultiHeadAttention = MultiheadAttention}
