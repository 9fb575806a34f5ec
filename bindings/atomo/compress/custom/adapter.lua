--- Adapters between scripted compressors and C codecs (stages 4 and 8). An adapter transforms gradient i to a
-- tensor, which its C codec encodes, and transforms the decoded tensor back to a gradient. C never calls Lua.
--   adapter:plan(i, shape, name)   adapter:code(i, g, key) -> tensor; key: {step=, rank=}
--   adapter:open(i)   adapter:add_message(i, step, data, size, scale, acc, rank) -> bytes used, all
--   adapter:close(i, acc)
-- all: true if the message is the complete gradient in dense form; the other adapters then have no message.
-- Any number of messages may be added between open and close; acc is complete after close. The user's functions run
-- in fp32, whatever the precision of the training: a rounded product would be a bias. They get a copy of the gradient
-- and may change it: the residual is computed from the gradient itself.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local precision = require "atomo.autograd.precision"
local new_kept = require "atomo.compress.custom.kept"
require "atomo.autograd.ops"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

--- Returns a fixed tensor without special structure. An adapter plans by the shapes that the user's functions return
--- for it.
local function probe(shape)
  local g = T.empty(shape)
  local p = g:data()
  for i = 0, g:numel() - 1 do p[i] = math.sin(1 + i + 0.37 * i * i) end
  return g
end

--- Returns a user function's result, made contiguous; raises unless it is an f32 tensor without NaN or Inf, with
--- `numel` elements if given. what: its name in error texts.
local function result(adapter, what, t, numel)
  T.expect(t, ("%s: %s"):format(adapter.name, what), "f32")
  if numel and t:numel() ~= numel then
    raise(("%s: %s is %s, %d elements; expected %d"):format(adapter.name, what, T.shape_text(t), t:numel(), numel))
  end
  local bad = t:count_nonfinite()
  if bad > 0 then raise(("%s: %s has %d NaN or Inf entries, of a finite gradient"):format(adapter.name, what, bad)) end
  return t:is_contiguous() and t or t:contiguous()
end

local function numel_of(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- ---- a fixed orthonormal basis -----------------------------------------------------------------------------------

local Basis = {}
Basis.__index = Basis

--- Makes an adapter for coefficients in an orthonormal basis, encoded as entries. Decoding sums the ranks' coefficients
--- and synthesises once.
function M.basis(codec, name, options, analyze, synthesize)
  return setmetatable({codec = codec, name = name, options = options, analyze = precision.in_fp32(analyze),
    synthesize = precision.in_fp32(synthesize), shape = {}, form = {}, sum = {}}, Basis)
end

function Basis:plan(i, shape, name)
  local known = self.shape[i]
  if known and table.concat(known, ",") == table.concat(shape, ",") then return end
  self.form[i] = T.scope(function()
    return result(self, "analyze's result", self.analyze(probe(shape), self.options), numel_of(shape)):shape()
  end)
  self.codec:plan(i, shape, name)
  self.shape[i] = {unpack(shape)}
  self.sum[i] = T.outside_scope(T.zeros, shape)
end

--- Returns the functions' results for fixed numbers, which must be equal on every rank (consistency.lua). [collective]
function Basis:samples(i)
  local fixed = probe(self.shape[i])
  return {result(self, "analyze's result", self.analyze(fixed, self.options)),
    result(self, "synthesize's result", self.synthesize(fixed:view(self.form[i]), self.shape[i], self.options))}
end

function Basis:code(i, g)
  return result(self, "analyze's result", self.analyze(g:clone(), self.options), g:numel()):view(g:shape())
end

function Basis:open(i) self.sum[i]:zero_() end

function Basis:add_message(i, step, data, size, scale, _, rank)
  check(C.atomo_codec_decode_add(self.codec.h, i, step, rank or -1, data, size, scale, self.sum[i].h,
    self.codec.used))
  return f.number(self.codec.used)
end

function Basis:close(i, acc)
  local g = self.synthesize(self.sum[i]:view(self.form[i]), self.shape[i], self.options)
  acc:add_(result(self, "synthesize's result", g, acc:numel()):view(acc:shape()))
end

-- ---- atoms that depend on the gradient ---------------------------------------------------------------------------

local Atoms = {}
Atoms.__index = Atoms
Atoms.decomposes = true

--- Makes an adapter for atoms: coefficients and factors are sampled and encoded as rows (runtime/atoms/list.c). Each
--- message is reconstructed on its own. bits: a list, of each factor's entries; nil: as option bits.
function M.atoms(codec, name, options, t, bits)
  return setmetatable({codec = codec, name = name, options = options, decompose = precision.in_fp32(t.decompose),
    reconstruct = precision.in_fp32(t.reconstruct), bits = bits or {}, kept = new_kept(name), names = {}, shape = {},
    width = {},
    whole = {}, rows = {}, drawn = {}}, Atoms)
end

--- Returns factor k, checked: a contiguous tensor [n, width] of f32, or of i32, which is sent exactly.
local function checked_factor(self, k, factor, n)
  local what = ("decompose's factor %d"):format(k)
  local whole = T.is_tensor(factor) and factor:dtype() == "i32"
  factor = whole and factor:contiguous() or result(self, what, factor)
  if factor:dim() ~= 2 or factor:size(1) ~= n then
    raise(("%s: %s is %s, expected [%d, width]: a row an atom, as many as lambda has"):format(self.name, what,
      T.shape_text(factor), n))
  end
  return factor
end

--- Calls decompose; returns lambda [n, 1] and a list of factors [n, d]. info: as decompose gets it; default: of a plan,
--- without a state.
local function decomposed(self, g, info)
  info = info or {tensor = 1, name = "plan", step = 0, rank = 0, state = {}}
  local lambda, factors = self.decompose(g, self.options, info)
  lambda = result(self, "decompose's lambda", lambda)
  self.single = T.is_tensor(factors)
  local list = self.single and {factors} or factors
  if type(list) ~= "table" or #list == 0 then
    raise(("%s: decompose's factors are %s, expected a tensor [atoms, width] or a list of them"):format(self.name,
      type(list) == "table" and "an empty list" or "a " .. type(list)))
  end
  local n, out = lambda:numel(), {}
  for k, factor in ipairs(list) do out[k] = checked_factor(self, k, factor, n) end
  return lambda:view(n, 1), out
end

--- Returns the bits of three factors for C: of i32 factors ATOMO_INTEGERS, 0 for option bits.
local function bits_of(self, i, count)
  local bits = {}
  if #self.bits > 0 and #self.bits ~= count then
    raise(("%s: bits has %d entries, decompose gives %d factors"):format(self.name, #self.bits, count))
  end
  for k = 1, 3 do bits[k] = self.whole[i][k] and C.ATOMO_INTEGERS or self.bits[k] or 0 end
  return bits
end

function Atoms:plan(i, shape, name)
  local known = self.shape[i]
  if known and table.concat(known, ",") == table.concat(shape, ",") then return end
  T.scope(function()
    local lambda, factors = decomposed(self, probe(shape))
    local n, width, columns = lambda:numel(), ffi.new("double[?]", #factors), 1
    self.width[i], self.whole[i] = {}, {}
    self.kept:forget(i)
    self.names[i] = name or tostring(i)
    for k, factor in ipairs(factors) do
      self.width[i][k], width[k - 1], columns = factor:size(2), factor:size(2), columns + factor:size(2)
      self.whole[i][k] = factor:dtype() == "i32"
    end
    local bits = bits_of(self, i, #factors)
    check(C.atomo_codec_list_bits(self.codec.h, bits[1], bits[2], bits[3]))
    check(C.atomo_codec_plan_list(self.codec.h, i, n, #factors, width, numel_of(shape), name))
    self.codec:planned(i, {n, columns})
    self.rows[i] = T.outside_scope(T.zeros, n, columns)
    self.drawn[i] = T.outside_scope(T.zeros, n, columns)
  end)
  self.shape[i] = {unpack(shape)}
end

function Atoms:code(i, g, key)
  local info = {tensor = i, name = self.names[i], step = key.step, rank = key.rank, state = self.kept:open(i)}
  local lambda, factors = decomposed(self, g:clone(), info)
  self.kept:close(i, info.state)
  local rows, n, at = self.rows[i], lambda:numel(), 2
  if n > rows:size(1) then
    raise(("%s: decompose gave %d atoms for a gradient %s, %d when it was planned; their number may depend on the " ..
      "shape alone"):format(self.name, n, T.shape_text(g), rows:size(1)))
  end
  if n < rows:size(1) then rows:zero_() end
  rows:narrow(1, 1, n):narrow(2, 1, 1):copy_(lambda)
  for k, width in ipairs(self.width[i]) do
    local factor = factors[k]
    if not factor or factor:size(2) ~= width or (factor:dtype() == "i32") ~= self.whole[i][k] then
      raise(("%s: decompose's factor %d is %s, it was %d wide and %s when planned; widths and types may depend only " ..
        "on the shape"):format(self.name, k, factor and ("%s %s"):format(T.shape_text(factor), factor:dtype()) or
        "missing", width, self.whole[i][k] and "i32" or "f32"))
    end
    rows:narrow(1, 1, n):narrow(2, at, width):copy_(factors[k])
    at = at + width
  end
  return rows
end

function Atoms:samples(i, comm)
  local lambda, factors = decomposed(self, probe(self.shape[i])) -- reconstruct may require factors made by decompose
  lambda = comm:bcast(lambda:clone(), 0):view(-1)
  for k, factor in ipairs(factors) do factors[k] = comm:bcast(factor:clone(), 0) end
  local g = self.reconstruct(lambda, self.single and factors[1] or factors, self.shape[i], self.options)
  return {result(self, "reconstruct's result", g)}
end

function Atoms:open() return self end
function Atoms:close() return self end

function Atoms:add_message(i, step, data, size, scale, acc, rank)
  local h, used = self.codec.h, self.codec.used
  if check(C.atomo_codec_dense_add(h, i, step, rank or -1, data, size, scale, acc.h, used)) == 1 then
    C.atomo_tensor_touch(acc.h)
    return f.number(used), true
  end
  local rows = self.drawn[i]:zero_()
  check(C.atomo_codec_decode_add(h, i, step, rank or -1, data, size, scale, rows.h, used))
  local n = C.atomo_codec_taken(h, i)
  if n == 0 then return f.number(used) end
  local factors, at = {}, 2
  for k, width in ipairs(self.width[i]) do
    local factor = rows:narrow(1, 1, n):narrow(2, at, width):contiguous()
    factors[k], at = self.whole[i][k] and factor:int() or factor, at + width
  end
  local weights = rows:narrow(1, 1, n):select(2, 1):contiguous()
  local g = self.reconstruct(weights, self.single and factors[1] or factors, self.shape[i], self.options)
  acc:add_(result(self, "reconstruct's result", g, acc:numel()):view(acc:shape()))
  return f.number(self.codec.used)
end

return M
