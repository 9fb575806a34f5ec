--- normalize and cosine_similarity.
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local raise = require("atomo.ffi").raise

local F = {}

local function unit(x, p, dim, eps) return x / x:norm(p, dim, true):clamp(eps) end

--- Returns the sizes to which a and b broadcast.
local function common_sizes(a, b)
  local sizes, p, q = {}, a:shape(), b:shape()
  local n = math.max(#p, #q)
  for i = 1, n do
    local m, k = p[#p - n + i] or 1, q[#q - n + i] or 1
    if m ~= k and m ~= 1 and k ~= 1 then
      raise(("cosine_similarity: a is %s, b is %s, which do not broadcast"):format(T.shape_text(a), T.shape_text(b)))
    end
    sizes[i] = m == 1 and k or m
  end
  return sizes
end

local function above_zero(v) return not (type(v) == "number" and v > 0) and "a number above 0" or nil end

local normalize_options = {p = above_zero, dim = O.whole(), eps = O.number(0)}
local similarity_options = {dim = O.whole(), eps = O.number(0)}

--- Returns x divided by its p-norms along a dimension, or by eps where a norm is below it.
---@param x atomo.Tensor  f32, of at least one dimension
---@param opts {p: number?, dim: integer?, eps: number?}?  p: default 2; dim: default the last; eps: default 1e-12
---@return atomo.Tensor  in x's shape
---@usage F.normalize(atomo.tensor {{3, 4}}):get(1, 2) > 0.79 --> true
function F.normalize(x, opts)
  T.expect(x, "normalize: input", "f32")
  opts = opts == nil and {} or opts
  O.check("normalize", opts, normalize_options)
  return unit(x, opts.p or 2, T.dimension(x, opts.dim or -1, "normalize") + 1, opts.eps or 1e-12)
end

--- Returns the cosines of the angles between the vectors of a and b along a dimension. A norm below eps counts as eps.
---@param a atomo.Tensor  f32
---@param b atomo.Tensor  f32; a and b broadcast
---@param opts {dim: integer?, eps: number?}?  dim: default the last; eps: default 1e-8
---@return atomo.Tensor  without that dimension
---@usage F.cosine_similarity(atomo.tensor {1, 0}, atomo.tensor {0, 2}):item() --> 0
function F.cosine_similarity(a, b, opts)
  T.expect(a, "cosine_similarity: a", "f32")
  T.expect(b, "cosine_similarity: b", "f32")
  opts = opts == nil and {} or opts
  O.check("cosine_similarity", opts, similarity_options)
  local sizes = common_sizes(a, b)
  a, b = a:expand(sizes), b:expand(sizes)
  local d, eps = T.dimension(a, opts.dim or -1, "cosine_similarity") + 1, opts.eps or 1e-8
  return (unit(a, 2, d, eps) * unit(b, 2, d, eps)):sum(d)
end

return F
