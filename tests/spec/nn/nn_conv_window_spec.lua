-- Convolution with large kernels and odd channels (runtime/nn/conv_rows.c, where the CPU has AVX-512): equal to
-- im2col, and bit-identical for any number of threads.
local convolution = require "support.convolution"

--- Can this machine run the kernels? Elsewhere the same layers go to an engine that sums by thread.
local function has_avx512()
  local file = io.open "/proc/cpuinfo"
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text:find "avx512f" ~= nil
end

-- LeNet's two, then: several strips of outputs and of taps, fewer pixels than a tile, every remainder of a vector
local cases = {
  {x = {5, 32, 32, 3}, w = {20, 5, 5, 3}, bias = true}, {x = {6, 14, 14, 20}, w = {50, 5, 5, 20}, bias = true},
  {x = {3, 9, 8, 3}, w = {33, 5, 5, 3}, padding = 2}, {x = {2, 7, 12, 30}, w = {100, 4, 3, 30}, padding = {1, 0}},
  {x = {1, 5, 5, 1}, w = {1, 5, 5, 1}, bias = true}, {x = {9, 2, 11, 47}, w = {17, 1, 11, 47}},
  {x = {2, 8, 6, 5}, w = {256, 7, 7, 5}, padding = 3, bias = true},
}

describe("convolution from rows", function()
  teardown(convolution.put_back)

  for i, c in ipairs(cases) do
    it(("agrees with im2col to 5e-6 of the largest element, case %d"):format(i), function()
      convolution.agrees("direct", c, 5e-6)
    end)

    it(("has the same bits on 1, 2 and 3 threads, case %d"):format(i), function()
      if not has_avx512() then return pending "needs AVX-512" end
      convolution.same_on_threads("direct", c, 2) -- the gradient of the images is sgemm's
    end)
  end
end)
