--- Measures a compressor on this model's gradients: bytes, and seconds to encode and decode a step, in the streaming
-- form that the exchange uses. It does not communicate: the figures, for the cost model (cost.lua), are this rank's.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local messages = require "atomo.exchange.messages"
local C, ffi = f.C, f.ffi

local const_bytes = ffi.typeof "const uint8_t *"
local STEPS = 3 -- default number of steps; the first plans and warms up, the minimum of the others is used

local M = {}

--- Copies tensors one behind the other into a flat one of `total` elements.
local function joined(list, total)
  local buffer, at = T.empty {total}, 1
  for _, g in ipairs(list) do
    buffer:narrow(1, at, g:numel()):view(g:shape()):copy_(g)
    at = at + g:numel()
  end
  return buffer
end

--- Selects the tensors that are sent as messages: those with two or more dimensions and at least min_size elements, and
--- with `join` one tensor of all others. Returns {list=, dense=, small=, tensors=}, totals as in cost.lua.
---@param grads atomo.Tensor[]
---@param min_size number
---@param join boolean?
function M.split(grads, min_size, join)
  local s, small = {list = {}, dense = 0, small = 0}, {}
  for _, g in ipairs(grads) do
    local bytes = 4 * g:numel()
    s.dense = s.dense + bytes
    if g:dim() >= 2 and g:numel() >= math.max(min_size, 1) then
      s.list[#s.list + 1] = g
    else
      small[#small + 1] = g
      s.small = s.small + bytes
    end
  end
  if join and #small > 0 then
    table.insert(s.list, 1, joined(small, s.small / 4))
    s.small = 0
  end
  s.tensors = #s.list
  return s
end

--- Returns the seconds to copy all gradients into one buffer and back. The gradients themselves are not written, since
-- the exchange may be reading them.
local function copying(grads)
  local n, best = 0, math.huge
  for _, g in ipairs(grads) do n = math.max(n, g:numel()) end
  local buffer, out = T.empty {n}, T.empty {n}
  for _ = 1, 2 do
    local t = C.atomo_time()
    for _, g in ipairs(grads) do
      local there = buffer:narrow(1, 1, g:numel())
      there:view(g:shape()):copy_(g)
      out:narrow(1, 1, g:numel()):copy_(there)
    end
    best = math.min(best, C.atomo_time() - t)
  end
  buffer:free()
  out:free()
  return best
end

--- Encodes and decodes one step in the streaming form. Returns bytes, seconds of encoding, seconds of decoding.
local function step(codec, s, k, send, sink)
  local t, n = C.atomo_time(), 0
  codec:begin_step(k, 0)
  for i, g in ipairs(s.list) do n = n + codec:push(i, g, send, n) end
  codec:end_step()
  local between = C.atomo_time()
  local source = {data = ffi.cast(const_bytes, send.h.data), left = n}
  for i in ipairs(s.list) do codec:decode_tensor(i, k, {source}, 1, sink[i]:zero_()) end
  return n, between - t, C.atomo_time() - between
end

local function coded(codec, s, steps)
  local shapes, sink = {}, {}
  for i, g in ipairs(s.list) do shapes[i], sink[i] = g:shape(), T.empty(g:shape()) end
  codec:prepare(shapes, nil, {step_bytes = s.dense, dense_bytes = s.small})
  local send = T.empty({math.max(1, codec:wire_max())}, "u8")
  local r = {message = 0, encode = math.huge, decode = math.huge}
  for k = 1, steps do
    local n, encode, decode = step(codec, s, k, send, sink)
    if k > 1 then r.message, r.encode, r.decode = n, math.min(r.encode, encode), math.min(r.decode, decode) end
  end
  send:free()
  for _, t in ipairs(sink) do t:free() end
  return r
end

--- Returns 1 if the compressor has a budget in bytes, which sharded divides between its two ways; else 0.
local function scales(spec)
  local read = require("atomo.compress").spec
  local entry, values = read.read(spec)
  local before = {unpack(values)}
  read.cut_budget(entry, values, 0.5)
  for i, v in ipairs(values) do
    if v == v and v ~= before[i] then return 1 end
  end
  return 0
end

--- Returns the split of the gradients under a compressor, see M.split.
local function frame(codec, spec, grads, opts)
  local fuse = opts.fuse_small or "auto"
  local join = codec.name ~= "none" and (fuse == "compress" or fuse == "auto" and codec.name == "auto")
  local s = M.split(grads, opts.min_size or 1024, join)
  return s, {dense = s.dense, small = s.small, tensors = s.tensors, scales = scales(spec),
    copy = copying(grads), backward = 0, message = s.dense - s.small, encode = 0, decode = 0}
end

--- Returns the work (cost.lua) of exchanging grads without measuring the compressor: message is the size of dense
--- gradients, encode and decode are 0. opts: as of M.work.
---@param spec string|table
---@param grads atomo.Tensor[]
---@param opts {min_size: number?, fuse_small: string?}?
---@return table work
function M.frame(spec, grads, opts)
  return T.outside_scope(function()
    local _, w = frame(messages.compressor({compress = spec}, "up"), spec, grads, opts or {})
    return w
  end)
end

--- Returns the measured work of exchanging grads under a compressor, without `backward`, which the caller sets. opts:
--- min_size (default 1024) and fuse_small ("auto") as of the exchange; steps (3), how often gradients are encoded.
---@param spec string|table
---@param grads atomo.Tensor[]  contiguous f32; unchanged
---@param opts {min_size: number?, fuse_small: string?, steps: integer?}?
---@return table work
function M.work(spec, grads, opts)
  opts = opts or {}
  local codec = messages.compressor({compress = spec}, "up")
  return T.outside_scope(function()
    local s, w = frame(codec, spec, grads, opts)
    if codec.name ~= "none" and s.tensors > 0 then
      local r = coded(codec, s, opts.steps or STEPS)
      w.message, w.encode, w.decode = r.message, r.encode, r.decode
    end
    return w
  end)
end

return M
