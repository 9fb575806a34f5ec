--- The class of scripted compressors (stages 4 and 8), with the methods of a native one. It has one or two adapters
-- (adapter.lua), whose C codecs do budgets, sampling, coding and closed-form variance. declare.lua makes instances.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local arguments = require "atomo.compress.arguments"
local message = require "atomo.compress.message"
local state = require "atomo.compress.state"
local schedule = require "atomo.compress.budget_schedule"
local consistency = require "atomo.compress.custom.consistency"
local strict_fields = require "atomo.core.fields"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

---@class atomo.CustomCompressor: atomo.Compressor
---@field held table      residuals of error feedback by tensor number, before this step
---@field sent table      the residuals after this step; valid for tensors in `changed`
---@field adapters table[]   one; or two: the head, which is always sent, and the rest, sampled by entries
local Custom = strict_fields({}, "compressor", "name unbiased linear text seed",
  "h linear schedule share epoch at_step last square streaming pending prepared last_budget ef step_budget")
Custom.__index = Custom
Custom.__tostring = function(self) return self.text end

-- ---- planning ----------------------------------------------------------------------------------------------------

local function plan(self, i, shape, name)
  arguments.tensor_number(self.name, i)
  arguments.not_empty(self.name, i, shape)
  local again = T.shape_text(self.shapes[i] or {}) ~= T.shape_text(shape)
  if again then arguments.residual_lost(self, i, self.held[i], shape) end
  for _, adapter in ipairs(self.adapters) do adapter:plan(i, shape, name) end
  if self.ef and (again or not self.held[i]) then
    self.held[i], self.sent[i] = T.outside_scope(T.zeros, shape), T.outside_scope(T.zeros, shape)
  end
  self.shapes[i], self.names[i] = {unpack(shape)}, name or self.names[i] or tostring(i)
  state.planned(self, i)
end

function Custom:prepare(shapes, names, more)
  local entries, bytes = arguments.plan_all(self, shapes, names, more, plan)
  if more then
    self.other = {entries = entries, bytes = bytes}
    local head = #self.adapters == 2 and self.adapters[1].codec:wire_max() or 0
    check(C.atomo_codec_reserve(self.codec.h, self.other.entries, self.other.bytes + head))
    if more.ranks then self:set_ranks(more.ranks) end
  end
  for _, adapter in ipairs(self.adapters) do adapter.codec:prepare_planned(#shapes) end
  self.prepared = #shapes
end

function Custom:wire_max()
  local bytes = 0
  for _, adapter in ipairs(self.adapters) do bytes = bytes + adapter.codec:wire_max() end
  return bytes
end

--- As of a native compressor: the number of ranks whose messages are averaged.
function Custom:set_ranks(ranks)
  for _, adapter in ipairs(self.adapters) do adapter.codec:set_ranks(ranks) end
end

function Custom:set_budget(budget) self.codec:set_budget(budget) end

function Custom:set_epoch(epoch) self.epoch = arguments.epoch(self.name, epoch) end

function Custom:override_of() return nil end

local function numbers(n)
  local ids = {}
  for i = 1, n do ids[i] = i end
  return ids
end

-- ---- encoding ----------------------------------------------------------------------------------------------------

--- Returns for each gradient g minus the decoded message of the head, so that the rest includes the head's rounding.
local function remainders(head, grads, ids, at)
  local rest = {}
  for j, g in ipairs(grads) do
    local sent, data, size = T.zeros(g:shape()), at(j)
    head:add_message(ids[j], -1, data, size, 1, sent)
    rest[j] = g - sent
  end
  return rest
end

--- Returns the gradient that a receiver decodes from message j of all adapters, with factor 1.
local function decoded(self, g, i, j, found)
  local sent = T.zeros(g:shape())
  for k, adapter in ipairs(self.adapters) do
    local data, size = found[k](j)
    adapter:open(i)
    adapter:add_message(i, -1, data, size, 1, sent)
    adapter:close(i, sent)
  end
  return sent
end

--- Error feedback (runtime/codec/form.c): stores the factor that is best for this draw in every adapter's message, and
--- the new residual in self.sent[i]; self.held[i] keeps the old one until the step is over. Returns the gradient that a
--- receiver decodes.
local function hold_back(self, g, i, j, found, sent)
  local factor = C.atomo_codec_best_factor(sent.h, g.h)
  for k, adapter in ipairs(self.adapters) do
    local data, size = found[k](j)
    check(C.atomo_codec_set_factor(adapter.codec.h, i, data, size, factor, self.kept))
  end
  sent:mul_(self.kept[0])
  self.sent[i]:copy_(g - sent)
  self.changed[i] = true
  self.error[i] = self.sent[i]:norm_value(2) ^ 2
  return sent
end

--- Ends a step: the new residuals of error feedback and states of the user's functions replace the old ones.
local function keep(self)
  for _, adapter in ipairs(self.adapters) do
    if adapter.kept then adapter.kept:commit() end
  end
  for i in pairs(self.changed) do
    self.held[i], self.sent[i], self.changed[i] = self.sent[i], self.held[i], nil
  end
end

--- Forgets what a step has changed in the states of the user's functions.
local function drop_kept(self)
  for _, adapter in ipairs(self.adapters) do
    if adapter.kept then adapter.kept:drop() end
  end
end

--- Returns message j in dense form, a string, if that is not longer than the adapters' messages; else nil.
local function dense_form(self, g, i, j, found, sent, key)
  local head, bytes = self.adapters[1], 0
  if not head.decomposes then return nil end -- the C codec of a basis chooses the dense form itself
  for k = 1, #self.adapters do
    local _, size = found[k](j)
    bytes = bytes + size
  end
  local most = C.atomo_codec_dense_max(head.codec.h, i, key.step, key.rank)
  if bytes < most then return nil end
  sent = sent or decoded(self, g, i, j, found)
  local room = T.empty({most + 16}, "u8")
  check(C.atomo_codec_dense(head.codec.h, i, key.step, key.rank, sent.h, room.h.data, most + 16, self.kept))
  self.saved[i] = bytes - self.kept[0]
  return ffi.string(room.h.data, self.kept[0])
end

--- Encodes gradients adapter by adapter. write(codec, tensors) makes the codec write its messages; it returns a
--- function j -> pointer and length of message j, and the bytes of all. Returns the messages to be sent in dense form,
--- {[j] = string}. key: {step=, rank=}.
local function encode_parts(self, grads, ids, key, write)
  local dense = {}
  if not self.streaming then drop_kept(self) end -- of an encode that has failed
  T.scope(function()
    local list, found = {}, {}
    self.square = 0
    for j, g in ipairs(grads) do
      list[j] = message.finite(self, g, ids[j])
      if self.ef then list[j] = list[j] + self.held[ids[j]] end
      if #self.adapters == 2 then self.square = self.square + list[j]:norm_value(2) ^ 2 end
    end
    local whole = list
    for k, adapter in ipairs(self.adapters) do
      local coded = {}
      for j, g in ipairs(list) do coded[j] = adapter:code(ids[j], g, key) end
      local at, bytes = write(adapter.codec, coded)
      found[k] = at
      if k < #self.adapters then
        list = remainders(adapter, list, ids, at)
        if not self.streaming then
          check(C.atomo_codec_reserve(self.codec.h, self.other.entries, self.other.bytes + bytes))
        end
      end
    end
    for j, g in ipairs(whole) do
      local i = ids[j]
      local sent = self.ef and hold_back(self, g, i, j, found, decoded(self, g, i, j, found))
      self.saved[i] = nil
      dense[j] = dense_form(self, g, i, j, found, sent, key)
    end
  end)
  if not self.streaming then keep(self) end
  return dense
end

--- Encodes gradients; returns their messages. The messages of a tensor's adapters are joined to one.
local function encode_list(self, grads, ids, key, encode)
  local parts = {}
  for j, g in ipairs(grads) do plan(self, ids[j], g:shape(), nil) parts[j] = {} end
  self.last = ids
  local dense = encode_parts(self, grads, ids, key, function(codec, coded)
    local messages, bytes = encode(codec, coded), 0
    for j, m in ipairs(messages) do
      table.insert(parts[j], m)
      bytes = bytes + m.nbytes
    end
    return function(j) return messages[j].data, messages[j].nbytes end, bytes
  end)
  local joined = {}
  for j, list in ipairs(parts) do
    local text = dense[j] or #list == 2 and list[1]:bytes() .. list[2]:bytes()
    joined[j] = text and message.new(ids[j], text, #text) or list[1]
  end
  return joined
end

function Custom:encode(g, opts)
  arguments.not_streaming(self, "encode")
  local step, rank, i = arguments.keys(opts, "encode", self.name)
  T.expect(g, self.name .. ": gradient", "f32")
  schedule.apply(self, step)
  return encode_list(self, {g}, {i}, {step = step, rank = rank}, function(codec, coded)
    return {codec:encode(coded[1], {step = step, rank = rank, tensor = i})}
  end)[1]
end

function Custom:encode_all(list, opts)
  arguments.not_streaming(self, "encode_all")
  local step, rank = arguments.keys(opts, "encode_all", self.name)
  local ids = arguments.gradient_list(self.name, "encode_all", list)
  schedule.apply(self, step)
  return encode_list(self, list, ids, {step = step, rank = rank}, function(codec, coded)
    return codec:encode_all(coded, {step = step, rank = rank})
  end)
end

--- Writes the messages of a step to out, adapter by adapter, dense forms in place of the messages that they replace;
--- returns the bytes written.
local function pack(out, adapters, count, dense)
  local pieces = {}
  for k, found in ipairs(adapters) do
    for j = 1, count do
      if not dense[j] then
        pieces[#pieces + 1] = ffi.string(found(j))
      elseif k == 1 then
        pieces[#pieces + 1] = dense[j]
      end
    end
  end
  local all = table.concat(pieces)
  ffi.copy(out.h.data, all, #all)
  return #all
end

function Custom:encode_step(grads, opts)
  arguments.not_streaming(self, "encode_step")
  local out, total, adapters = arguments.step_of(self, grads, opts), 0, {}
  local key = {step = opts.step, rank = opts.rank or 0}
  schedule.apply(self, opts.step)
  self.last = numbers(#grads)
  local dense = encode_parts(self, grads, self.last, key, function(codec, coded)
    local free = out:narrow(1, total + 1, out:numel() - total)
    local bytes = codec:encode_step(coded, {step = opts.step, rank = opts.rank, out = free})
    local base, starts = ffi.cast("uint8_t *", out.h.data) + total, {0}
    for j = 1, #coded do starts[j + 1] = starts[j] + codec.lengths[j - 1] end
    total = total + bytes
    adapters[#adapters + 1] = function(j) return base + starts[j], starts[j + 1] - starts[j] end
    return adapters[#adapters], bytes
  end)
  self.at_step = opts.step
  return next(dense) and pack(out, adapters, #grads, dense) or total
end

function Custom:begin_step(step, rank)
  arguments.not_streaming(self, "begin_step")
  arguments.step_key(self.name, step, rank)
  schedule.apply(self, step)
  for _, adapter in ipairs(self.adapters) do adapter.codec:begin_step(step, rank) end
  arguments.begin(self, step, rank)
end

function Custom:push(i, g, out, offset)
  local total = 0
  arguments.push(self, i, g, out, offset)
  self.last[#self.last + 1] = i
  local dense = encode_parts(self, {g}, {i}, self.streaming, function(codec, coded)
    local data, start = ffi.cast("uint8_t *", out.h.data), offset + total
    local bytes = codec:push(i, coded[1], out, start)
    total = total + bytes
    return function() return data + start, bytes end, bytes
  end)
  self.streaming.pushed[i] = true
  if not dense[1] then return total end
  ffi.copy(ffi.cast("uint8_t *", out.h.data) + offset, dense[1], #dense[1])
  return #dense[1]
end

function Custom:end_step()
  for _, adapter in ipairs(self.adapters) do adapter.codec:end_step() end
  keep(self)
  self.streaming = false
end

function Custom:undo_step()
  for _, adapter in ipairs(self.adapters) do adapter.codec:undo_step() end
  for i in pairs(self.changed) do self.changed[i] = nil end
  drop_kept(self)
  self.streaming = false
end

--- Returns a copy of the residual of error feedback (ef=true) of tensor i (default 1).
function Custom:residual(i)
  local held = self.held[i or 1]
  if not held then raise(("%s: residual: tensor %d has none"):format(self.name, i or 1)) end
  return held:clone()
end

function Custom:finish(acc) return acc end

function Custom:stats(i)
  local s = self.codec:stats(i)
  if #self.adapters == 2 then
    local head = self.adapters[1].codec:stats(i)
    for _, key in ipairs {"nbytes", "atoms_expected", "atoms_sent"} do s[key] = s[key] + head[key] end
    s.square = self.square
  end
  local ids = i and {i} or self.last or {}
  if self.ef then s.variance = 0 end
  for _, id in ipairs(ids) do
    s.nbytes = s.nbytes - (self.saved[id] or 0)
    if self.ef then s.variance = s.variance + (self.error[id] or 0) end
  end
  return s
end

--- Raises unless the functions give the same results on all ranks (consistency.lua). [collective]
function Custom:check_ranks(comm) consistency.check(self, comm) end

for name, method in pairs(require "atomo.compress.custom.decode") do Custom[name] = method end
for name, method in pairs(state.custom) do Custom[name] = method end

--- Makes a compressor over a list of adapters. fields: name, text, seed, ef.
local function new(fields, list)
  local self = setmetatable({shapes = {}, names = {}, other = {entries = 0, bytes = 0}, adapters = list, held = {},
    sent = {}, changed = {}, error = {}, saved = {}, kept = ffi.new "double[1]", codec = list[#list].codec}, Custom)
  for key, value in pairs(fields) do self[key] = value end
  self.unbiased = not self.ef
  for _, adapter in ipairs(self.ef and list or {}) do check(C.atomo_codec_carry_factor(adapter.codec.h)) end
  return self
end

return new
