--- The class of compressors written in Lua (stages 4 and 8 of the path): the methods of a built-in one over one or two
-- lanes (lanes.lua). Budgets, sampling, coding and closed forms are C's. declare.lua makes them.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local message = require "atomo.compress.message"
local state = require "atomo.compress.state"
local schedule = require "atomo.compress.schedule"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.CustomCompressor: atomo.Compressor
---@field lanes table[]  one; or two: the head, sent for sure, and the rest of the gradient, sampled by entries
local Custom = {}
Custom.__index = Custom
Custom.__tostring = function(self) return self.text end

-- ---- planning ----------------------------------------------------------------------------------------------------

local function plan(self, i, shape, name)
  if type(i) ~= "number" or i < 1 or i % 1 ~= 0 then
    raise(("%s: tensor is %s, expected a number 1, 2, ..."):format(self.name, tostring(i)))
  end
  for _, lane in ipairs(self.lanes) do lane:plan(i, shape, name) end
  if self.ef and T.shape_text(self.shapes[i] or {}) ~= T.shape_text(shape) then
    self.held[i] = T.outside_scope(T.zeros, shape)
  end
  self.shapes[i], self.names[i] = {unpack(shape)}, name or self.names[i] or tostring(i)
  state.planned(self, i)
end

function Custom:prepare(shapes, names, more)
  if type(shapes) ~= "table" then
    raise(("%s: prepare: shapes is a %s, expected a list"):format(self.name, type(shapes)))
  end
  local entries = 0
  for i, shape in ipairs(shapes) do
    plan(self, i, shape, names and names[i])
    local n = 1
    for _, d in ipairs(shape) do n = n * d end
    entries = entries + n
  end
  if more then
    self.other = {entries = math.max(0, more.step_bytes / 4 - entries), bytes = more.dense_bytes}
    local head = #self.lanes == 2 and self.lanes[1].codec:wire_max() or 0
    check(C.atomo_codec_reserve(self.codec.h, self.other.entries, self.other.bytes + head))
  end
  for _, lane in ipairs(self.lanes) do lane.codec:prepare_planned(#shapes) end
  self.prepared = #shapes
end

function Custom:wire_max()
  local bytes = 0
  for _, lane in ipairs(self.lanes) do bytes = bytes + lane.codec:wire_max() end
  return bytes
end

function Custom:set_budget(budget) self.codec:set_budget(budget) end

function Custom:set_epoch(epoch) self.epoch = epoch end

function Custom:override_of() return nil end

-- ---- encoding ----------------------------------------------------------------------------------------------------

local function check_gradient(self, g, i)
  T.expect(g, ("%s: gradient %d"):format(self.name, i), "f32")
  local bad, first = g:count_nonfinite()
  if bad > 0 then
    local name = self.names[i] or tostring(i)
    f.raise(("%s: gradient of tensor %s %s: %d entries are NaN or Inf, the first is number %d"):format(self.name, name,
      T.shape_text(g), bad, first))
  end
  return g:is_contiguous() and g or g:contiguous()
end

--- What the head leaves: g less what every receiver will make of the head's message, so that any rounding in it is
--- made up for by the rest.
local function remainders(head, grads, ids, at)
  local rest = {}
  for j, g in ipairs(grads) do
    local sent, data, size = T.zeros(g:shape()), at(j)
    head:take(ids[j], -1, data, size, 1, sent)
    rest[j] = g - sent
  end
  return rest
end

--- What a receiver makes of message j of every lane is taken off what is held back (error feedback).
local function hold_back(self, list, ids, found)
  for j, g in ipairs(list) do
    local i, sent = ids[j], T.zeros(g:shape())
    for k, lane in ipairs(self.lanes) do
      local data, size = found[k](j)
      lane:open(i)
      lane:take(i, -1, data, size, 1, sent)
      lane:close(i, sent)
    end
    self.held[i]:copy_(g - sent)
  end
end

--- Codes gradients lane by lane. write(codec, tensors) lets the codec write its messages and returns a function j ->
--- pointer and length of message j, and the bytes of all.
local function encode_lanes(self, grads, ids, write)
  T.scope(function()
    local list, found = {}, {}
    self.square = 0
    for j, g in ipairs(grads) do
      list[j] = check_gradient(self, g, ids[j])
      if self.ef then list[j] = list[j] + self.held[ids[j]] end
      if #self.lanes == 2 then self.square = self.square + list[j]:norm_value(2) ^ 2 end
    end
    local whole = list
    for k, lane in ipairs(self.lanes) do
      local coded = {}
      for j, g in ipairs(list) do coded[j] = lane:code(ids[j], g) end
      local at, bytes = write(lane.codec, coded)
      found[k] = at
      if k < #self.lanes then
        list = remainders(lane, list, ids, at)
        if not self.streaming then
          check(C.atomo_codec_reserve(self.codec.h, self.other.entries, self.other.bytes + bytes))
        end
      end
    end
    if self.ef then hold_back(self, whole, ids, found) end
  end)
end

--- Messages of the lanes, each tensor's joined into one.
local function encode_list(self, grads, ids, encode)
  local parts = {}
  for j, g in ipairs(grads) do plan(self, ids[j], g:shape(), nil) parts[j] = {} end
  encode_lanes(self, grads, ids, function(codec, coded)
    local messages, bytes = encode(codec, coded), 0
    for j, m in ipairs(messages) do
      table.insert(parts[j], m)
      bytes = bytes + m.nbytes
    end
    return function(j) return messages[j].data, messages[j].nbytes end, bytes
  end)
  local joined = {}
  for j, list in ipairs(parts) do
    if #list == 1 then
      joined[j] = list[1]
    else
      local text = list[1]:bytes() .. list[2]:bytes()
      joined[j] = message.new(ids[j], text, #text)
    end
  end
  return joined
end

function Custom:encode(g, opts)
  local step, rank = self.codec.keys(opts, "encode", self.name)
  local i = opts and opts.tensor or 1
  T.expect(g, self.name .. ": gradient", "f32")
  schedule.apply(self, step)
  return encode_list(self, {g}, {i}, function(codec, coded)
    return {codec:encode(coded[1], {step = step, rank = rank, tensor = i})}
  end)[1]
end

function Custom:encode_all(list, opts)
  local step, rank = self.codec.keys(opts, "encode_all", self.name)
  if type(list) ~= "table" or T.is_tensor(list) then
    raise(("%s: encode_all: expected a list of tensors"):format(self.name))
  end
  local ids = {}
  schedule.apply(self, step)
  for i, g in ipairs(list) do
    ids[i] = i
    T.expect(g, ("%s: gradient %d"):format(self.name, i), "f32")
  end
  return encode_list(self, list, ids, function(codec, coded)
    return codec:encode_all(coded, {step = step, rank = rank})
  end)
end

function Custom:encode_step(grads, opts)
  if not self.prepared or #grads ~= self.prepared then
    raise(("%s: encode_step: %d gradients, %s were prepared"):format(self.name, #grads,
      tostring(self.prepared or "none")))
  end
  local out, total = T.expect(opts.out, self.name .. ": encode_step: out", "u8"), 0
  local ids = {}
  schedule.apply(self, opts.step)
  for i = 1, #grads do ids[i] = i end
  encode_lanes(self, grads, ids, function(codec, coded)
    local free = out:narrow(1, total + 1, out:numel() - total)
    local bytes = codec:encode_step(coded, {step = opts.step, rank = opts.rank, out = free})
    local base, starts = ffi.cast("const uint8_t *", out.h.data) + total, {0}
    for j = 1, #coded do starts[j + 1] = starts[j] + codec.lengths[j - 1] end
    total = total + bytes
    return function(j) return base + starts[j], starts[j + 1] - starts[j] end, bytes
  end)
  self.at_step = opts.step
  return total
end

function Custom:begin_step(step, rank)
  schedule.apply(self, step)
  for _, lane in ipairs(self.lanes) do lane.codec:begin_step(step, rank) end
  self.streaming = true
end

function Custom:push(i, g, out, offset)
  local total = 0
  encode_lanes(self, {g}, {i}, function(codec, coded)
    local data, start = ffi.cast("const uint8_t *", out.h.data), offset + total
    local bytes = codec:push(i, coded[1], out, start)
    total = total + bytes
    return function() return data + start, bytes end, bytes
  end)
  return total
end

function Custom:end_step()
  for _, lane in ipairs(self.lanes) do lane.codec:end_step() end
  self.streaming = false
end

-- ---- decoding ----------------------------------------------------------------------------------------------------

--- accs[j] += scale times what the messages hold that walk(take) finds; take(j, step, data, size) gives their length.
local function decode(self, ids, accs, scale, walk)
  T.scope(function()
    for _, i in ipairs(ids) do
      for _, lane in ipairs(self.lanes) do lane:open(i) end
    end
    walk(function(lane, j, step, data, size, rank)
      return lane:take(ids[j], step, data, size, scale, accs[j], rank)
    end)
    for j, i in ipairs(ids) do
      for _, lane in ipairs(self.lanes) do lane:close(i, accs[j]) end
      C.atomo_tensor_touch(accs[j].h)
    end
  end)
end

--- Decodes one message into acc.
local function decode_one(self, what, msg, scale, acc)
  local data, size = message.bytes_of(self.name, msg, what)
  local i = check(C.atomo_codec_tensor_of(data, size))
  local shape = self.shapes[i]
  if not shape then
    raise(("%s: %s: the message is for tensor %d, which is not planned"):format(self.name, what, i))
  end
  acc = acc or T.zeros(shape)
  if T.shape_text(acc) ~= T.shape_text(shape) then
    raise(("%s: %s: acc is %s, the message's tensor %d is %s"):format(self.name, what, T.shape_text(acc), i,
      T.shape_text(shape)))
  end
  local sum = T.zeros(shape) -- acc stays as it is where a message is refused
  local used = 0
  decode(self, {i}, {sum}, scale, function(take)
    for _, lane in ipairs(self.lanes) do used = used + take(lane, 1, -1, data + used, size - used) end
    message.whole(self.name, what, used, size)
  end)
  acc:add_(sum)
  sum:free()
  return acc
end

function Custom:decode(msg) return decode_one(self, "decode", msg, 1) end

function Custom:decode_add(msg, scale, acc)
  if type(scale) ~= "number" then
    raise(("%s: decode_add: scale is a %s, expected a number"):format(self.name, type(scale)))
  end
  return decode_one(self, "decode_add", msg, scale, T.expect(acc, self.name .. ": decode_add: acc", "f32"))
end

--- Takes one rank's step, as encode_step wrote it.
local function walk_step(self, take, count, data, nbytes, step)
  local left = nbytes
  for _, lane in ipairs(self.lanes) do
    for j = 1, count do
      local used = take(lane, j, step, data, left)
      data, left = data + used, left - used
    end
  end
  if left ~= 0 then raise(("%s: decode: %d bytes follow the last message"):format(self.name, left)) end
end

local function numbers(n)
  local ids = {}
  for i = 1, n do ids[i] = i end
  return ids
end

function Custom:decode_step(bytes, offset, nbytes, scale, accs, step)
  T.expect(bytes, self.name .. ": decode_step: bytes", "u8")
  if not (offset >= 0 and nbytes >= 0 and offset + nbytes <= bytes.h.numel) then
    raise(("%s: decode_step: bytes %g to %g of %g"):format(self.name, offset, offset + nbytes, bytes.h.numel))
  end
  local data = ffi.cast("const uint8_t *", bytes.h.data) + offset
  decode(self, numbers(#accs), accs, scale, function(take)
    walk_step(self, take, #accs, data, nbytes, step or self.at_step or -1)
  end)
end

--- Sums the coefficients over all ranks, then synthesises once.
function Custom:decode_all(bytes, counts, ranks, scale, accs)
  local data = ffi.cast("const uint8_t *", T.expect(bytes, self.name .. ": decode_all: bytes", "u8").h.data)
  decode(self, numbers(#accs), accs, scale, function(take)
    for r = 0, ranks - 1 do
      walk_step(self, take, #accs, data, counts[r], self.at_step or -1)
      data = data + counts[r]
    end
  end)
end

--- acc += scale times the messages for tensor i that come next in each of the sources {data=pointer, left=bytes,
--- rank=whose (nil: anyone's)}, as push wrote them in that step. The sources move on behind them.
function Custom:decode_tensor(i, step, sources, scale, acc)
  decode(self, {i}, {acc}, scale, function(take)
    for _, s in ipairs(sources) do
      for _, lane in ipairs(self.lanes) do
        local used = take(lane, 1, step, s.data, s.left, s.rank)
        s.data, s.left = s.data + used, s.left - used
      end
    end
  end)
end

--- What error feedback (ef=true) holds back of tensor i.
function Custom:residual(i)
  local held = self.held[i or 1]
  if not held then raise(("%s: residual of tensor %d: there is none"):format(self.name, i or 1)) end
  return held:clone()
end

function Custom:finish(acc) return acc end

function Custom:stats(i)
  local s = self.codec:stats(i)
  if #self.lanes == 2 then
    local head = self.lanes[1].codec:stats(i)
    for _, key in ipairs {"nbytes", "atoms_expected", "atoms_sent"} do s[key] = s[key] + head[key] end
    s.square = self.square
  end
  return s
end

for name, method in pairs(state.custom) do Custom[name] = method end

--- A compressor over lanes; fields: name, text, seed, ef.
local function new(fields, list)
  local self = setmetatable({shapes = {}, names = {}, other = {entries = 0, bytes = 0}, lanes = list, held = {},
    codec = list[#list].codec}, Custom)
  for key, value in pairs(fields) do self[key] = value end
  self.unbiased = not self.ef
  return self
end

return new
