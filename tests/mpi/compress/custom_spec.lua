-- Scripted compressors in an exchange: averages are bit-identical on all ranks and close to the dense one.
local atomo = require "atomo"
local world = atomo.mpi.world
local root = require "support.root"

for _, name in ipairs {"haar", "head_tail"} do
  dofile(root .. "scripts/atoms/" .. name .. ".lua")
end

describe("a compressor in Lua", function()
  for _, spec in ipairs {"haar_lua:ratio=0.1", "head_tail:ratio=0.1", "haar_lua:ratio=8",
    "head_tail:ratio=8,ef=true"} do
    it(spec .. " averages over the ranks", function()
      local ex, dense = atomo.exchange {compress = spec, min_size = 10}, atomo.exchange {}
      for step = 1, 3 do
        atomo.manual_seed(100 * step + world.rank)
        local a, b = {}, {}
        for i, shape in ipairs {{8, 3, 3, 4}, {5}, {12, 30}} do
          a[i] = atomo.randn(shape)
          b[i] = a[i]:clone()
        end
        for i = 3, 1, -1 do
          ex:push(i, a[i])
          dense:push(i, b[i])
        end
        ex:finish()
        dense:finish()
        for i = 1, 3 do
          ex:check_replicas(a[i], "gradient " .. i)
          if spec:find "0.1" then assert.is_true((a[i] - b[i]):norm_value(math.huge) < 1e-5) end
        end
      end
      assert.is_true(ex:stats().variance >= 0)
    end)
  end
end)
