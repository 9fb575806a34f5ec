--- Checks arguments of compressor methods: tensor numbers, lists, keys of the random streams, ranges of bytes. Native
-- (init.lua, streaming.lua) and scripted compressors (custom/init.lua) share them, so that their errors are the same.
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local length = require "atomo.core.list"
local raise = require("atomo.ffi").raise
local number = require "atomo.core.number"

local M = {}

local LARGEST_SCALE = 2 ^ 128 - 2 ^ 103 -- the least number that is infinite in f32

--- Returns i; raises unless it is a tensor number, 1 or more.
function M.tensor_number(name, i)
  local n = number.whole(i, 1, 2 ^ 31 - 1)
  if not n then raise(("%s: tensor is %s, expected a number 1, 2, ..."):format(name, brief(i))) end
  return n
end

--- Returns the epoch that set_epoch gets; raises unless it is a whole number.
function M.epoch(name, epoch) return number.expect_whole(epoch, name .. ": set_epoch: the epoch") end

--- Raises unless a state is a table. what: the first words of the error.
function M.state_table(what, state)
  if type(state) ~= "table" or T.is_tensor(state) then
    raise(("%s: load_state_dict: the state is %s, expected a result of state_dict()"):format(what,
      T.is_tensor(state) and "a tensor" or number.text(state)))
  end
end

--- Raises unless shape is a list of whole numbers.
function M.shape(name, i, shape)
  local bad = type(shape) ~= "table"
  for _, d in ipairs(bad and {} or shape) do bad = bad or not number.whole(d, 0) end
  if bad then
    raise(("%s: prepare: shape %d is %s, expected a list of whole numbers"):format(name, i,
      type(shape) == "table" and T.shape_text(shape) or number.text(shape)))
  end
end

--- Raises if a tensor of this shape has no entries: a compressor has nothing to send then (runtime/codec/plan.c).
function M.not_empty(name, i, shape)
  for _, d in ipairs(shape) do
    if d == 0 then raise(("%s: tensor %d of shape %s is empty"):format(name, i, T.shape_text(shape))) end
  end
end

--- Calls plan(self, i, shape, name) for every tensor of a step. more: see Compressor:prepare; if given, returns the
--- number of the step's gradient entries that are not in `shapes`, and more.dense_bytes.
function M.plan_all(self, shapes, names, more, plan)
  if type(shapes) ~= "table" then
    raise(("%s: prepare: shapes is a %s, expected a list"):format(self.name, type(shapes)))
  end
  local entries = 0
  for i, shape in ipairs(shapes) do
    M.shape(self.name, i, shape)
    plan(self, i, shape, names and names[i])
    local n = 1
    for _, d in ipairs(shape) do n = n * d end
    entries = entries + n
  end
  if more then return math.max(0, more.step_bytes / 4 - entries), more.dense_bytes end
end

--- Returns step, rank and tensor number of an encode's options (defaults 0, 0, 1).
function M.keys(opts, fn, name)
  opts = opts or {}
  for key, value in pairs(opts) do
    if key ~= "step" and key ~= "rank" and key ~= "tensor" and key ~= "out" then
      raise(("%s: %s: unknown option '%s', options are step, tensor, rank, out"):format(name, fn, brief(key)))
    elseif key ~= "out" and not number.of(value) then
      raise(("%s: %s: %s is %s, expected a number"):format(name, fn, key, number.text(value)))
    end
  end
  local step, rank = M.step_key(name, opts.step or 0, opts.rank or 0)
  return step, rank, number.of(opts.tensor or 1)
end

--- Returns step and rank as numbers; raises unless messages can hold them.
function M.step_key(name, step, rank)
  local function check(what, v, bits)
    return number.whole(v, 0, 2 ^ bits - 1) or
      raise(("%s: %s is %s, expected an integer in 0 .. 2^%d-1"):format(name, what, number.text(v), bits))
  end
  return check("step", step, 32), check("rank", rank or 0, 24)
end

-- ---- streamed steps of compressors in Lua: field streaming, false outside of a step ---------------------------------

--- Raises in a streamed step. fn: the method.
function M.not_streaming(self, fn)
  if self.streaming then
    raise(("%s: %s: the streamed step %d has not been ended"):format(self.name, fn, self.streaming.step))
  end
end

--- Begins a streamed step.
function M.begin(self, step, rank)
  M.not_streaming(self, "begin_step")
  step, rank = M.step_key(self.name, step, rank)
  self.streaming, self.last = {step = step, rank = rank, pushed = {}}, {}
end

--- Checks the arguments of push: tensor i is planned for g's shape and has no message in this step, out is a u8 tensor.
function M.push(self, i, g, out, offset)
  local open = self.streaming
  local function refuse(what, ...) raise(("%s: push: " .. what):format(self.name, ...)) end
  if not open then refuse "begin_step was not called" end
  M.tensor_number(self.name, i)
  T.expect(g, ("%s: gradient %d"):format(self.name, i), "f32")
  local shape = self.shapes[i]
  if not shape then refuse("tensor number %d is not planned", i) end
  if T.shape_text(shape) ~= T.shape_text(g) then
    refuse("tensor %d is planned for %s, its gradient is %s", i, T.shape_text(shape), T.shape_text(g))
  end
  if open.pushed[i] then refuse("tensor %d has been pushed in step %d already", i, open.step) end
  T.expect(out, self.name .. ": push: out", "u8")
  M.offset(self.name, offset, out)
end

--- Raises unless offset, 0-based, is in out or at its end.
function M.offset(name, offset, out)
  if not number.whole(offset, 0, out.h.numel) then
    raise(("%s: push: offset is %s, out has %g bytes"):format(name, number.text(offset), out.h.numel))
  end
end

--- Raises if tensor i, planned for `old`, would lose a residual of error feedback, held, by being planned for another
--- shape.
function M.residual_lost(self, i, held, shape)
  if held and held:norm_value(math.huge) > 0 then
    raise(("%s: tensor %d %s is planned again as %s, which would lose its residual of error feedback; give every " ..
      "tensor a number of its own"):format(self.name, i, T.shape_text(held), T.shape_text(shape)))
  end
end

--- Returns the tensor numbers {1, ..., #list} of a list of gradients; raises unless all are f32 tensors.
function M.gradient_list(name, fn, list)
  if type(list) ~= "table" or T.is_tensor(list) then raise(("%s: %s: expected a list of tensors"):format(name, fn)) end
  local ids = {}
  length(list, name .. ": " .. fn)
  for i, g in ipairs(list) do
    ids[i] = i
    T.expect(g, ("%s: gradient %d"):format(name, i), "f32")
  end
  return ids
end

--- Returns opts.out, a u8 tensor; raises unless there are as many gradients as were prepared.
function M.step_of(self, grads, opts)
  if not self.prepared or #grads ~= self.prepared then
    raise(("%s: encode_step: %d gradients, %s were prepared"):format(self.name, #grads,
      brief(self.prepared or "none")))
  end
  M.step_key(self.name, opts.step, opts.rank)
  return T.expect(opts.out, self.name .. ": encode_step: out", "u8")
end

--- Raises unless `bytes` is a u8 tensor of at least offset + nbytes elements.
function M.stretch(name, bytes, offset, nbytes)
  T.expect(bytes, name .. ": decode_step: bytes", "u8")
  if not (offset >= 0 and nbytes >= 0 and offset + nbytes <= bytes.h.numel) then
    raise(("%s: decode_step: bytes %g to %g of %g"):format(name, offset, offset + nbytes, bytes.h.numel))
  end
end

--- Returns acc; raises unless scale is a number and acc an f32 tensor.
function M.accumulator(name, scale, acc)
  if type(scale) ~= "number" then
    raise(("%s: decode_add: scale is a %s, expected a number"):format(name, type(scale)))
  elseif scale ~= scale or math.abs(scale) >= LARGEST_SCALE then
    raise(("%s: decode_add: scale is %g, expected a number that f32 can hold"):format(name, scale))
  end
  return T.expect(acc, name .. ": decode_add: acc", "f32")
end

return M
