--- Random training scripts, drawn from a seed: models, frozen parameters, groups, optimizers, micro-batches, steps that
-- are given up, clipping, ranks without data, local SGD, topologies, compressors, checkpoints. A script is plain data;
-- random_training_run.lua runs it, tests/mpi/train/random_training_spec.lua checks the results.
local atomo = require "atomo"
local root = require "support.root"
local matrix = require "support.exchange_matrix"
local world = atomo.mpi.world

dofile(root .. "scripts/atoms/head_tail.lua")
dofile(root .. "scripts/atoms/haar.lua")
atomo.basis("random-reversed", {
  analyze = function(g) return g:view(-1) * -1 end,
  synthesize = function(c, shape) return (c * -1):view(shape) end,
})

local M = {MAX_RANKS = 4}

--- A separate random generator, so that a script depends only on its seed. random(n): 1 .. n; random:of(list): an
--- element; random:odds(k): true with probability 1 / k.
local Random = {}
Random.__index = Random
Random.__call = function(self, n)
  self.state = self.state * 16807 % 2147483647
  return math.floor(self.state / 16) % n + 1
end
function Random:of(list) return list[self(#list)] end
function Random:odds(k) return self(k) == 1 end

function M.generator(seed)
  local random = setmetatable({state = (seed * 7919 + 12345) % 2147483647}, Random)
  for _ = 1, 5 do random(2) end
  return random
end

-- ---- compressors -------------------------------------------------------------------------------------------------

local ratios = {1, 2, 4, 8, 16, 64}
local samplings = {"", ",sampling=systematic"}

local function budgeted(name, more)
  return function(r)
    local text = ("%s:ratio=%d%s"):format(name, r:of(ratios), r:of(samplings))
    return text .. (more and r:of(more) or "")
  end
end

local function plain(...)
  local list = {...}
  return function(r) return r:of(list) end
end

local families = {
  plain "none", plain "none",
  budgeted("entry", {"", ",step=0.25", ",step=0"}), plain("entry:atoms=3", "entry:bytes=9000"),
  budgeted("svd", {"", ",bits=8", ",bits=2", ",bits=0", ",every=3", ",fold=paper"}),
  plain("svd:atoms=2", "svd:bytes=8000,bits=4"),
  budgeted("svd", {",bits=4", ",every=2"}),
  function(r)
    return ("auto:ratio=%d%s"):format(r:of(ratios), r:of {"", ",every=1", ",keep=2", ",keep=3,every=2",
      ",prefer=variance"})
  end,
  plain("auto:bytes=1500", "auto:bytes=2500,every=2", "auto:bytes=5000,keep=2"),
  budgeted "taps", budgeted("rotated", {"", ",base=none", ",classes=1"}),
  budgeted("fourier", {"", ",rows=1", ",dims=2"}), budgeted("dct", {"", ",chunk=8"}),
  budgeted "hadamard", budgeted "haar", budgeted("rows", {"", ",bits=8"}),
  plain("qsgd", "qsgd:bits=2,coding=elias", "qsgd:bits=8,bucket=0", "qsgd:norm=max"), plain("terngrad", "natural",
    "eden", "eden:bits=1"),
  plain("randk:ratio=4", "randk:k=5"), plain("topk:ratio=4", "topk:k=3"), plain("signsgd", "signsgd:vote=true"),
  plain("powersgd", "powersgd:rank=2", "powersgd:warm=false"),
  plain("fp16", "bf16", "fp16:round=stochastic", "bf16:round=stochastic"), plain "atomo-published:atoms=2",
  budgeted "head_tail", plain("haar_lua:ratio=4", "haar_lua:atoms=3"), budgeted "random-reversed",
  plain("entry:ratio=4;weight=none", "svd:ratio=4;0%.=entry:step=1", "auto:ratio=8;weight$=none"),
}
local biased = {topk = true, signsgd = true, powersgd = true, fp16 = true, bf16 = true}

local function compressor(r)
  local text = r:of(families)(r)
  local name = text:match "^[%w_-]+"
  if name == "none" or text:find ";" or text:find "vote" or not r:odds(biased[name] and 2 or 4) then return text end
  return text .. (text:find ":" and "," or ":") .. "ef=true"
end

local function exchange(r)
  local compress = compressor(r)
  local topology = r:of(matrix.topologies)
  while not matrix.possible(topology, compress) or topology.comm and compress:find "bytes=" do
    topology = r:of(matrix.topologies)
  end
  local changes = compress:find "^%l+:ratio=%d+$" and not compress:find "k:" and r:odds(2)
  local budgets = changes and {r:of(ratios), r:of(ratios), r:of(ratios)} or nil
  return {compress = compress, budgets = budgets, topology = topology.topology, downlink = topology.downlink,
    inter_node = topology.inter_node, hosts = topology.comm and true or nil, min_size = r:of {0, 30, 100, 1024},
    fuse_small = r:of {"auto", "dense", "compress"}, seed = r(100)}
end

-- ---- the rest ----------------------------------------------------------------------------------------------------

local function optimizer(r)
  local o = {kind = r:of {"sgd", "sgd", "sgd", "adam", "adam", "adamw", "lars", "lamb"}, lr = r:of {0.003, 0.01, 0.03}}
  if r:odds(2) then o.weight_decay = 0.01 end
  if o.kind == "sgd" and r:odds(2) then
    o.momentum = 0.9
    o.nesterov = r:odds(2)
  elseif o.kind == "adam" or o.kind == "adamw" then
    o.amsgrad = r:odds(4)
  end
  o.groups = r:odds(3) and {split = r(3), lr = r:of {0, 0.001, 0.02}, weight_decay = r:of {0, 0.1}} or nil
  return o
end

--- Returns the number of images of a micro-batch on each rank; at least one rank has some.
local function images(r)
  local n, total = {}, 0
  for rank = 1, M.MAX_RANKS do n[rank] = r:odds(6) and 0 or 1 + r(3) end
  for rank = 1, world.size do total = total + n[rank] end
  if total == 0 then n[1] = 2 end
  return n
end

local function micro_batches(r, count)
  local list = {}
  for k = 1, count do list[k] = {n = images(r), data = r(1e6), ignored = r:odds(5) and r(M.MAX_RANKS) - 1 or nil} end
  return list
end

--- Returns the steps of an epoch: each with its micro-batches, events before it, and steps given up before it.
local function epoch(r, s)
  local steps, ways = {}, s.driver == "train" and {"loss", "gradient"} or {"pushed", "in part", "averaged", "nan"}
  for k = 1, 2 + r(4) do
    local step = {micro = micro_batches(r, s.accumulate), lost = {}}
    for i = 1, r:odds(4) and r(2) or 0 do
      local lost = {micro = micro_batches(r, s.accumulate), way = r:of(ways), rank = r(12) % world.size,
        at = r(s.accumulate)}
      lost.micro[lost.at].n[lost.rank + 1], lost.micro[lost.at].ignored = 2, nil -- this rank needs images to fail on
      step.lost[i] = lost
    end
    if r:odds(5) then step.freeze = {on = not r:odds(3), module = r(6), whole = r:odds(2)} end
    if r:odds(6) then step.scale = r:of {0, 1e-4, 100} end -- factor of the loss
    if r:odds(12) then step.group_lr = r:of {0, 0.005, 0.02} end
    if s.driver == "loop" and r:odds(8) then step.optimizer = optimizer(r) end
    steps[k] = step
  end
  if s.driver == "train" and s.accumulate > 1 and r:odds(2) then -- the last step has fewer
    steps[#steps].micro[s.accumulate] = nil
  end
  return steps
end

--- Returns the script of a seed, the same for every number of ranks, except if a topology needs more ranks.
function M.draw(seed)
  local r = M.generator(seed)
  local s = {seed = seed, driver = r:of {"train", "train", "loop"},
    model = {kind = r:of {"mlp", "conv", "norm", "tied", "nested", "embedding"}, dropout = r:odds(3) and 0.3 or 0,
      cumulative = r:odds(3), width = r:odds(10) and 260 or r:of {8, 24, 60}},
    optimizer = optimizer(r), exchange = exchange(M.generator(seed + 5e5)), accumulate = r:odds(3) and 1 + r(2) or 1,
    clip_norm = r:odds(4) and 0.1 or nil, clip_value = r:odds(6) and 0.01 or nil, at_end = r:odds(3) or nil,
    frozen = r:odds(3) and {on = true, module = r(6), whole = r:odds(2)} or nil,
    schedule = r:odds(3) or nil}
  if s.driver == "train" and r:odds(4) then
    s.local_steps = r(3)
    s.outer = r:odds(2) and {lr = r:of {1, 0.7}, momentum = r:of {0, 0.9}} or nil
  end
  s.epochs = {}
  for e = 1, 1 + r(2) do s.epochs[e] = epoch(r, s) end
  if s.driver == "train" and r:odds(4) then s.before = {optimizer = optimizer(r), epoch(r, s)} end -- a run before
  s.stop = r(#s.epochs - 1) -- the epoch after which the run is resumed
  return s
end

local function text_of(v)
  if type(v) ~= "table" then return tostring(v) end
  local keys, parts = {}, {}
  for key in pairs(v) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    parts[#parts + 1] = (type(key) == "number" and "" or key .. "=") .. text_of(v[key])
  end
  return "{" .. table.concat(parts, " ") .. "}"
end

--- Returns the settings of a script as text, to replay it; with `whole` also its steps.
function M.text(s, whole)
  local head = {}
  for key, value in pairs(s) do
    if whole or key ~= "epochs" and key ~= "before" then head[key] = value end
  end
  return text_of(head)
end

return M
