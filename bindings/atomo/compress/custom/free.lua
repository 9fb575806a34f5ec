--- The class of free compressors, atomo.codec (stages 4 to 6 and 8): the user's encode turns a gradient into tensors,
-- texts and numbers, the user's decode turns these into a gradient. This file adds frames, checksums, error feedback,
-- figures, and the methods of a native compressor. The decoded entries are sent (form 1 of frame.lua) if the values
-- take no fewer bytes, so a message is never longer than planned. (The gradient itself in their place would be a bias
-- if draws decide the length: the long draws would lose their errors, the short ones not.)
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local number = require "atomo.core.number"
local arguments = require "atomo.compress.arguments"
local consistency = require "atomo.compress.custom.consistency"
local frame = require "atomo.compress.custom.frame"
local message = require "atomo.compress.message"
local precision = require "atomo.autograd.precision"
local new_kept = require "atomo.compress.custom.kept"
local schedule = require "atomo.compress.budget_schedule"
local state = require "atomo.compress.state"
local brief = require "atomo.core.brief"
local strict_fields = require "atomo.core.fields"
local values = require "atomo.compress.custom.values"
local ffi, C, raise = f.ffi, f.C, f.raise

---@class atomo.FreeCompressor: atomo.Compressor
---@field t table         the declaration: encode, decode, variance, bytes
---@field held table      residuals of error feedback by tensor number, before this step
---@field sent table      the residuals after this step; valid for tensors that it has encoded
---@field figures table   {nbytes=, variance=, square=} of the last message by tensor number
local Free = strict_fields({}, "compressor", "name unbiased linear text seed",
  "h linear schedule share epoch at_step last streaming pending prepared last_budget ef step_budget")
Free.__index = Free
Free.__tostring = function(self) return self.text end

-- ---- planning ----------------------------------------------------------------------------------------------------

local function numel_of(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

--- Returns the largest body of tensor i: as declared, at most its entries in f32.
local function most_body(self, i)
  local dense, claim = 4 * numel_of(self.shapes[i]), nil
  if self.t.bytes then claim = self.t.bytes({unpack(self.shapes[i])}, self.options) end
  if claim ~= nil and (type(claim) ~= "number" or claim ~= claim or claim < 0) then
    raise(("%s: bytes returned %s, expected a number"):format(self.name, brief(claim)))
  end
  return math.min(dense, claim or dense)
end

local function plan(self, i, shape, name)
  arguments.tensor_number(self.name, i)
  arguments.not_empty(self.name, i, shape)
  self.names[i] = name or self.names[i] or tostring(i)
  if self.shapes[i] and T.shape_text(self.shapes[i]) == T.shape_text(shape) then return end
  arguments.residual_lost(self, i, self.held[i], shape)
  self.shapes[i] = {unpack(shape)}
  self.kept:forget(i)
  local text = ("%s %s"):format(self.label, T.shape_text(shape))
  self.most[i] = most_body(self, i)
  self.hash[i] = C.atomo_crc32(text, #text) % 65536
  if self.ef then self.held[i], self.sent[i] = T.outside_scope(T.zeros, shape), T.outside_scope(T.zeros, shape) end
  state.planned(self, i)
end

function Free:prepare(shapes, names, more)
  arguments.plan_all(self, shapes, names, more, plan)
  self.prepared = #shapes
end

--- Returns the most bytes of tensor i's message.
local function most_bytes(self, i) return frame.HEADER + (self.ef and 4 or 0) + self.most[i] end

function Free:wire_max()
  local bytes = 0
  for i in pairs(self.shapes) do bytes = bytes + most_bytes(self, i) end
  return bytes
end

--- Raises if `left` bytes of out are fewer than the messages of these tensors may need.
local function check_room(self, what, ids, left)
  local need = 0
  for _, i in ipairs(ids) do need = need + most_bytes(self, i) end
  if left < need then
    raise(("%s: %s: %d bytes are left in out, the messages may need %d"):format(self.name, what, left, need))
  end
end

--- As of a native compressor; the draws of a user's functions are their own, whatever the number of ranks.
function Free:set_ranks(ranks) number.expect_whole(ranks, self.name .. ": ranks", 1, 2 ^ 24) end

function Free:set_budget() raise(("%s: set_budget: it takes no budget"):format(self.name)) end
function Free:set_epoch(epoch) self.epoch = arguments.epoch(self.name, epoch) end
function Free:override_of() return nil end

-- ---- the user's functions ----------------------------------------------------------------------------------------

--- Returns rand(...): uniform numbers in [0, 1), a tensor of that shape. The same seed, step, rank and tensor draw the
--- same numbers.
local function draws(self, i, step, rank)
  local at, stream = 0, ffi.new "atomo_stream"
  stream.purpose, stream.rank, stream.step, stream.tensor = C.ATOMO_RNG_SAMPLE, rank, step, i
  stream.seed[0], stream.seed[1] = self.seed % 2 ^ 32, math.floor(self.seed / 2 ^ 32)
  stream.seed[1] = bit.bxor(stream.seed[1], bit.lshift(self.way, 24))
  return function(...)
    local t = T.zeros(...)
    local n = t:numel()
    C.atomo_random_uniform(stream, at, n, t:data())
    at = at + n
    return t
  end
end

local function info_of(self, i, key, kept)
  return {tensor = i, name = self.names[i], step = key.step, rank = key.rank, state = kept,
    rand = draws(self, i, key.step, key.rank)}
end

--- Returns the bytes of what the user's encode returns for g: a tensor, a text, a number, or a list of these.
local function body_of(self, g, info)
  local parts = precision.run(C.ATOMO_PRECISION_FP32, self.t.encode, g, self.options, info)
  for k, part in ipairs(type(parts) == "table" and not T.is_tensor(parts) and parts or {parts}) do
    local kind = type(part)
    if not T.is_tensor(part) and kind ~= "string" and kind ~= "number" then
      raise(("%s: encode's result%s is a %s, expected a tensor, a text, a number, or a list of these"):format(self.name,
        type(parts) == "table" and (" %d"):format(k) or "", kind))
    end
  end
  if parts == nil then raise(self.name .. ": encode returned nothing, expected a tensor, a text or a list") end
  return values.write(parts)
end

--- Returns the user's gradient of a body, checked.
local function gradient_of(self, i, body)
  local shape = self.shapes[i]
  local parts, why = values.read(body)
  if parts == nil then raise(("%s: the message of tensor %d is malformed: %s"):format(self.name, i, why)) end
  local g = precision.run(C.ATOMO_PRECISION_FP32, self.t.decode, parts, {unpack(shape)}, self.options)
  T.expect(g, self.name .. ": decode's result", "f32")
  if g:numel() ~= numel_of(shape) then
    raise(("%s: decode's result is %s, expected %s"):format(self.name, T.shape_text(g), T.shape_text(shape)))
  end
  local bad = g:count_nonfinite()
  if bad > 0 then raise(("%s: decode's result has %d NaN or Inf entries"):format(self.name, bad)) end
  return g:contiguous():view(shape)
end

-- ---- messages ----------------------------------------------------------------------------------------------------

local function f32_text(x) return ffi.string(ffi.new("float[1]", x), 4) end

--- Returns the gradient of a message read.
local function decoded(self, m)
  local g
  if m.form == 1 then
    g = T.empty(self.shapes[m.tensor])
    if #m.body ~= 4 * g:numel() then raise(("%s: decode: %d bytes of entries"):format(self.name, #m.body)) end
    ffi.copy(g.h.data, m.body, #m.body)
  else
    g = gradient_of(self, m.tensor, m.body)
  end
  return m.factor ~= 1 and g * m.factor or g
end

--- Returns the message of gradient g of tensor i as a string; sets its figures and its residual.
local function encode_one(self, g, i, key)
  g = message.finite(self, g, i)
  return T.scope(function()
    local x = self.ef and g + self.held[i] or g
    local info = info_of(self, i, key, self.kept:open(i))
    local body, form = body_of(self, x:clone(), info), 0
    self.kept:close(i, info.state)
    if self.t.bytes and #body > self.most[i] then
      raise(("%s: tensor %s: encode's result takes %d bytes, bytes(shape) claims at most %d"):format(self.name,
        self.names[i], #body, self.most[i]))
    end
    local ghat = gradient_of(self, i, body)
    if #body >= 4 * x:numel() then body, form = ffi.string(ghat.h.data, 4 * x:numel()), 1 end
    if self.ef then
      local factor = f32_text(C.atomo_codec_best_factor(ghat:contiguous().h, x.h))
      ghat, body = ghat * ffi.cast("const float *", ffi.cast("const char *", factor))[0], factor .. body
      self.sent[i]:copy_(x - ghat)
      self.changed[i] = true
    end
    local text = frame.write({tensor = i, step = key.step, rank = key.rank, form = form, hash = self.hash[i]}, body)
    local claimed = self.t.variance and not self.ef
    local error = claimed and self.t.variance(x, self.options) or (x - ghat):norm_value(2) ^ 2
    self.figures[i] = {nbytes = #text, variance = error, square = x:norm_value(2) ^ 2}
    return text
  end)
end

--- Ends a step: the residuals and states after it replace those before it.
local function keep(self)
  self.kept:commit()
  for i in pairs(self.changed) do
    self.held[i], self.sent[i], self.changed[i] = self.sent[i], self.held[i], nil
  end
end

local function drop(self)
  self.kept:drop()
  for i in pairs(self.changed) do self.changed[i] = nil end
end

--- Encodes list[j] as tensor ids[j], outside a streamed step; returns the messages' bytes.
local function encode_list(self, list, ids, key)
  local texts = {}
  drop(self) -- what an encode that has failed left
  for j, g in ipairs(list) do plan(self, ids[j], g:shape(), nil) end
  for j, g in ipairs(list) do
    texts[j] = encode_one(self, g, ids[j], key)
  end
  self.last = ids
  keep(self)
  return texts
end

function Free:encode(g, opts)
  arguments.not_streaming(self, "encode")
  local step, rank, i = arguments.keys(opts, "encode", self.name)
  T.expect(g, self.name .. ": gradient", "f32")
  schedule.apply(self, step)
  local text = encode_list(self, {g}, {i}, {step = step, rank = rank})[1]
  return message.new(i, text, #text)
end

function Free:encode_all(list, opts)
  arguments.not_streaming(self, "encode_all")
  local step, rank = arguments.keys(opts, "encode_all", self.name)
  local ids, messages = arguments.gradient_list(self.name, "encode_all", list), {}
  for j, text in ipairs(encode_list(self, list, ids, {step = step, rank = rank})) do
    messages[j] = message.new(j, text, #text)
  end
  return messages
end

function Free:encode_step(grads, opts)
  arguments.not_streaming(self, "encode_step")
  local out, ids = arguments.step_of(self, grads, opts), {}
  for i = 1, #grads do ids[i] = i end
  check_room(self, "encode_step", ids, out.h.numel)
  local text = table.concat(encode_list(self, grads, ids, {step = opts.step, rank = opts.rank or 0}))
  ffi.copy(out.h.data, text, #text)
  self.at_step = opts.step
  return #text
end

function Free:begin_step(step, rank) arguments.begin(self, step, rank) end

function Free:push(i, g, out, offset)
  arguments.push(self, i, g, out, offset)
  check_room(self, "push", {i}, out.h.numel - offset)
  self.last[#self.last + 1] = i
  local text = encode_one(self, g, i, self.streaming)
  self.streaming.pushed[i] = true
  ffi.copy(ffi.cast("uint8_t *", out.h.data) + offset, text, #text)
  return #text
end

function Free:end_step()
  if not self.streaming then raise(self.name .. ": end_step: begin_step was not called") end
  keep(self)
  self.streaming = false
end

function Free:undo_step()
  drop(self)
  self.streaming = false
end

-- ---- decoding ----------------------------------------------------------------------------------------------------

--- Adds scale times the gradient of the message at data to acc; returns its bytes.
local function add_message(self, what, data, left, scale, acc, i, step, rank)
  local m = frame.read(self, what, data, left, i, step or -1, rank)
  T.scope(function() acc:axpy_(scale, decoded(self, m):view(acc:shape())) end)
  return m.bytes
end

function Free:decode(msg)
  local data, size = message.bytes_of(self.name, msg, "decode")
  local m = frame.read(self, "decode", data, size, nil, -1)
  message.whole(self.name, "decode", m.bytes, size)
  return T.scope(function() return decoded(self, m):clone() end)
end

function Free:decode_add(msg, scale, acc)
  arguments.accumulator(self.name, scale, acc)
  local data, size = message.bytes_of(self.name, msg, "decode_add")
  local m = frame.read(self, "decode_add", data, size, nil, -1)
  message.whole(self.name, "decode_add", m.bytes, size)
  if T.shape_text(acc) ~= T.shape_text(self.shapes[m.tensor]) then
    raise(("%s: decode_add: acc is %s, the message's tensor %d is %s"):format(self.name, T.shape_text(acc), m.tensor,
      T.shape_text(self.shapes[m.tensor])))
  end
  T.scope(function() acc:axpy_(scale, decoded(self, m)) end)
  return acc
end

function Free:decode_step(bytes, offset, nbytes, scale, accs, step)
  arguments.stretch(self.name, bytes, offset, nbytes)
  local data, left = ffi.cast("const uint8_t *", bytes.h.data) + offset, nbytes
  for i, acc in ipairs(accs) do
    local used = add_message(self, "decode_step", data, left, scale, acc, i, step or self.at_step)
    data, left = data + used, left - used
  end
  if left ~= 0 then raise(("%s: decode_step: %d bytes follow the last message"):format(self.name, left)) end
end

function Free:decode_tensor(i, step, sources, scale, acc)
  for _, s in ipairs(sources) do
    local used = add_message(self, "decode", s.data, s.left, scale, acc, i, step, s.rank)
    s.data, s.left = s.data + used, s.left - used
  end
end

function Free:finish(acc) return acc end
function Free:finish_step() end

-- ---- figures, checks, state --------------------------------------------------------------------------------------

--- Returns a copy of the residual of error feedback (ef=true) of tensor i (default 1).
function Free:residual(i)
  local held = self.held[i or 1]
  if not held then raise(("%s: residual: tensor %d has none"):format(self.name, i or 1)) end
  return held:clone()
end

--- Returns figures of the last encode, step, or of tensor i: nbytes as sent; variance, as declared, else the squared
--- error of these messages; square (||g||^2). atoms_expected and atoms_sent are 0.
function Free:stats(i)
  if i ~= nil then arguments.tensor_number(self.name, i) end
  local s = {nbytes = 0, atoms_expected = 0, atoms_sent = 0, variance = 0, square = 0}
  for _, id in ipairs(i and {i} or self.last or {}) do
    for key, value in pairs(self.figures[id] or {}) do s[key] = s[key] + value end
  end
  return s
end

--- Returns what this rank decodes from rank 0's message of fixed numbers (consistency.lua). [collective]
function Free:samples(i, comm)
  local g, key = T.empty(self.shapes[i]), {step = 0, rank = 0}
  local p = g:data()
  for k = 0, g:numel() - 1 do p[k] = math.sin(1 + k + 0.37 * k * k) end
  local body = body_of(self, g, info_of(self, i, key, {}))
  return {gradient_of(self, i, comm:allgatherv(body)[1])}
end

--- Raises unless decode gives the same gradient on all ranks. [collective]
function Free:check_ranks(comm) consistency.check(self, comm) end

for name, method in pairs(state.custom) do Free[name] = method end

--- Makes a free compressor. fields: name, text, label (name and options), seed, way, ef, t (the declaration), options.
return function(fields)
  local self = setmetatable({shapes = {}, names = {}, hash = {}, most = {}, held = {}, sent = {}, changed = {},
    figures = {}, kept = new_kept(fields.name), adapters = {}}, Free)
  for key, value in pairs(fields) do self[key] = value end
  self.unbiased = fields.t.unbiased == true and not self.ef
  self.adapters[1] = {kept = self.kept, samples = function(_, i, comm) return self:samples(i, comm) end,
    codec = {restart = function() end, load_state_dict = function() end, state_dict = function() return {} end},
  }
  return self
end
