--- Job for bytes_spec.lua: exchanges generated gradients; every rank prints the bytes that it counted as received.
-- Arguments: steps, topology, compressor, downlink.
local atomo = require "atomo"
local world = atomo.mpi.world
local steps, topology, compress, down = tonumber(arg[1]), arg[2], arg[3], arg[4]

local ex = atomo.exchange {topology = topology, compress = compress, downlink = down}
local shapes, grads, received, dense = {{256, 1152}, {128, 576}, {64, 300}, {700}}, {}, 0, 0
for i, shape in ipairs(shapes) do grads[i] = atomo.zeros(shape) end

for step = 1, steps do
  for i = #shapes, 1, -1 do
    atomo.manual_seed(1000 * step + 10 * i + world.rank)
    local g = atomo.randn(shapes[i])
    ex:push(i, grads[i]:copy_(g * g * g)) -- heavy tails, as gradients have
  end
  ex:finish()
  local s = ex:stats()
  received, dense = received + s.bytes_in, dense + s.dense_bytes
end
for r = 0, world.size - 1 do
  world:barrier()
  if r == world.rank then
    print(("rank %d of %d received %d of %d"):format(r, world.size, received, dense))
    io.stdout:flush()
  end
end
