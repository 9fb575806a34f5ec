--- What users hand to a compressor, checked: tensor numbers, lists, keys of the streams, stretches of bytes.
-- Compressors in C (init.lua, streaming.lua) and in Lua (compress/custom/init.lua) ask here, so that both say the same.
local T = require "atomo.tensor"
local raise = require("atomo.ffi").raise
local number = require "atomo.core.number"

local M = {}

--- i, which must be a tensor's number.
function M.tensor_number(name, i)
  local n = number.whole(i, 1, 2 ^ 31 - 1)
  if not n then raise(("%s: tensor is %s, expected a number 1, 2, ..."):format(name, tostring(i))) end
  return n
end

--- Plans every tensor of a step by plan(self, i, shape, name). With more {step_bytes=, dense_bytes=} it returns what
--- the step holds beside them: entries and bytes.
function M.plan_all(self, shapes, names, more, plan)
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
  if more then return math.max(0, more.step_bytes / 4 - entries), more.dense_bytes end
end

--- Step, rank and tensor out of an encode's options.
function M.keys(opts, fn, name)
  opts = opts or {}
  for key, value in pairs(opts) do
    if key ~= "step" and key ~= "rank" and key ~= "tensor" and key ~= "out" then
      raise(("%s: %s: unknown option '%s', options are step, tensor, rank, out"):format(name, fn, tostring(key)))
    elseif key ~= "out" and not number.of(value) then
      raise(("%s: %s: %s is %s, expected a number"):format(name, fn, key, number.text(value)))
    end
  end
  return number.of(opts.step or 0), number.of(opts.rank or 0), number.of(opts.tensor or 1)
end

--- The numbers 1 .. #list of a list of gradients.
function M.gradient_list(name, fn, list)
  if type(list) ~= "table" or T.is_tensor(list) then raise(("%s: %s: expected a list of tensors"):format(name, fn)) end
  local ids = {}
  for i, g in ipairs(list) do
    ids[i] = i
    T.expect(g, ("%s: gradient %d"):format(name, i), "f32")
  end
  return ids
end

--- The gradients of a whole step must be as many as were prepared, and out a u8 tensor: out.
function M.step_of(self, grads, opts)
  if not self.prepared or #grads ~= self.prepared then
    raise(("%s: encode_step: %d gradients, %s were prepared"):format(self.name, #grads,
      tostring(self.prepared or "none")))
  end
  return T.expect(opts.out, self.name .. ": encode_step: out", "u8")
end

--- bytes must be a u8 tensor that has offset .. offset + nbytes.
function M.stretch(name, bytes, offset, nbytes)
  T.expect(bytes, name .. ": decode_step: bytes", "u8")
  if not (offset >= 0 and nbytes >= 0 and offset + nbytes <= bytes.h.numel) then
    raise(("%s: decode_step: bytes %g to %g of %g"):format(name, offset, offset + nbytes, bytes.h.numel))
  end
end

--- scale must be a number, acc an f32 tensor: acc.
function M.accumulator(name, scale, acc)
  if type(scale) ~= "number" then
    raise(("%s: decode_add: scale is a %s, expected a number"):format(name, type(scale)))
  end
  return T.expect(acc, name .. ": decode_add: acc", "f32")
end

return M
