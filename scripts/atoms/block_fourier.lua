--- Example of a user-defined basis: a Fourier transform of each convolution kernel. A weight is [out, kh, kw, in];
-- tensors with other numbers of dimensions are not transformed.
local atomo = require "atomo"

--- Returns the real orthonormal Fourier basis of n points; its rows are the mean, then cosine and sine of each
--- frequency.
local function waves(n)
  local f = atomo.empty(n, n)
  for k = 0, n - 1 do
    local w = 2 * math.pi * math.ceil(k / 2) / n
    local size = math.sqrt((k == 0 or (k == n - 1 and n % 2 == 0)) and 1 / n or 2 / n) -- 1/n: mean, Nyquist frequency
    for x = 0, n - 1 do
      f:set(k + 1, x + 1, size * ((k == 0 or k % 2 == 1) and math.cos(w * x) or math.sin(w * x)))
    end
  end
  return f
end

--- Returns out, taps (kh * kw), in of a shape, and the basis of its kernels [taps, taps].
local function kernels(shape)
  if #shape ~= 4 then return 1, 1, nil, atomo.ones(1, 1) end
  local kh, kw = shape[2], shape[3]
  local a, b = waves(kh):view(kh, 1, kh, 1), waves(kw):view(1, kw, 1, kw)
  return shape[1], kh * kw, shape[4], (a * b):view(kh * kw, kh * kw)
end

atomo.basis("block_fourier", {
  summary = "Fourier over each kernel of a convolution, in Lua",
  analyze = function(g)
    local out, taps, inputs, w = kernels(g:shape())
    inputs = inputs or g:numel()
    return w:matmul(g:view(out, taps, inputs):transpose(1, 2):contiguous():view(taps, out * inputs))
  end,
  synthesize = function(c, shape)
    local out, taps, inputs, w = kernels(shape)
    inputs = inputs or c:numel()
    return w:t():matmul(c):view(taps, out, inputs):transpose(1, 2):contiguous():view(shape)
  end,
})
