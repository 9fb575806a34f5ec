-- The state_dict of an exchange is complete: a new exchange that loads it continues bit-identically, for every topology
-- and compressor, with and without overlap. Gradients change in size and kind from step to step.
local atomo = require "atomo"
local root = require "support.root"
local matrix = require "support.exchange_matrix"
local world = atomo.mpi.world

local more = {"fp16:ef=true", "powersgd:ef=true", "topk:ratio=4,ef=true", "signsgd:ef=true", "randk:ratio=4,ef=true",
  "entry:ratio=8,ef=true", "qsgd:ef=true", "svd:ratio=8,bits=8,every=4", "svd:ratio=8,bits=8,every=4,ef=true",
  "svd:atoms=2,bits=32,every=3", "taps:ratio=8", "rotated:ratio=8", "auto:ratio=8,keep=4",
  "auto:ratio=8,every=3,keep=4,ef=true",
  "svd:ratio=8,bits=8;^gradient 1$=entry"}

local shapes = {{24, 30}, {7}, {12, 3, 3, 8}, {2, 2}, {40, 40}}
local STEPS, AT = 8, 5

local function gradients(step)
  local list = {}
  for i, shape in ipairs(shapes) do
    atomo.manual_seed(1000 * step + 100 * i + world.rank)
    list[i] = atomo.randn(shape):mul_(step % 3 == 0 and 10 or 1 / step)
    if step % 2 == 0 and #shape == 2 then list[i]:add_(atomo.randn(shape[1], 1):matmul(atomo.randn(1, shape[2]))) end
  end
  return list
end

--- Runs steps first .. last; returns the bytes of the averages by step.
local function run(ex, first, last)
  local seen = {}
  for step = first, last do
    local grads = gradients(step)
    for i = #grads, 1, -1 do ex:push(i, grads[i]) end
    ex:finish()
    local parts = {}
    for i, g in ipairs(grads) do parts[i] = g:bytes() end
    seen[step] = table.concat(parts, "|")
  end
  return seen
end

local function open(o, compress, overlap)
  local ok, ex = matrix.exchange(o, {compress = compress, min_size = 30, seed = 5, overlap = overlap,
    fuse_small = compress:find "^auto" and "compress" or nil})
  ex = ok and ex or nil
  if ex then ex:set_epoch(1) end
  return ex
end

local function copies(state)
  local kept = {}
  for name, t in pairs(state) do kept[name] = t:clone() end
  return kept
end

local function continues(o, compress, overlap)
  local what = matrix.name(o, compress)
  local ex = open(o, compress, overlap)
  run(ex, 1, AT)
  local state, step = copies(ex:state_dict()), ex.step
  local whole = run(ex, AT + 1, STEPS)
  local again = open(o, compress, not overlap)
  again:set_step(step)
  again:load_state_dict(state)
  local rest = run(again, AT + 1, STEPS)
  for k = AT + 1, STEPS do
    local same = world:allreduce(atomo.tensor {whole[k] == rest[k] and 1 or 0}, "min"):item() == 1
    assert.is_true(same, ("%s, overlap %s: step %d has other bits"):format(what, tostring(overlap), k))
  end
end

describe("an exchange that loads another one's state", function()
  for _, o in ipairs(matrix.topologies) do
    it("continues with its bits: " .. matrix.name(o, "all compressors"), function()
      local tried = 0
      for k, compress in ipairs(matrix.compressors(more)) do
        if matrix.possible(o, compress) then
          continues(o, compress, k % 2 == 0)
          tried = tried + 1
        end
      end
      assert.is_true(tried > 0 or world.size < 3)
    end)
  end

  it("continues where the compressor is written in Lua, with its adapters", function()
    dofile(root .. "scripts/atoms/head_tail.lua")
    dofile(root .. "scripts/atoms/haar.lua")
    for _, compress in ipairs {"head_tail:ratio=8,rank=2", "head_tail:ratio=8,rank=2,ef=true"} do
      continues({topology = "allgather"}, compress, true)
    end
  end)
end)
