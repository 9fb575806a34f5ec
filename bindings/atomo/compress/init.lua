--- Compressors encode a gradient to a message and decode it to an estimate of the gradient (stages 4 to 6 and 8).
-- atomo.compressor, atomo.compressors, atomo.probabilities. The codecs are in C (runtime/codec, atoms, compress); a
-- codec plans each tensor once and allocates nothing afterwards.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local spec = require "atomo.compress.spec"
local arguments = require "atomo.compress.arguments"
local message = require "atomo.compress.message"
local state = require "atomo.compress.state"
local overrides = require "atomo.compress.overrides"
local schedule = require "atomo.compress.budget_schedule"
local strict_fields = require "atomo.core.fields"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local u8_pointer = ffi.typeof "uint8_t *"
local double1 = ffi.typeof "double[1]"
local doubles = ffi.typeof "double[?]"

---@class atomo.Compressor
---@field name string
---@field unbiased boolean
---@field linear boolean  messages can be added before decoding, so topology allreduce can be used
local Compressor = strict_fields({}, "compressor", "name unbiased linear text seed",
  "fold overrides schedule share room ids handles lengths prepared epoch last_ids last_budget at_step pending ef " ..
  "check_ranks step_budget")
Compressor.__index = Compressor
Compressor.__tostring = function(self) return self.text end

--- Way of a message, part of the random stream's key: "up", from a rank; "down", an average that is encoded again.
local ways = {up = C.ATOMO_WAY_UP, down = C.ATOMO_WAY_DOWN}

local function key_of(opts)
  local seed, way = opts and opts.seed or 0, opts and opts.way or "up"
  seed = number.expect_whole(seed, "compressor: seed", 0)
  if not ways[way] then raise(("compressor: way is %s, expected 'up' or 'down'"):format(brief(way))) end
  return {seed = seed, way = ways[way]}
end

--- Opens the C codec `name`; returns a compressor. values: option values in C's order; key: {seed=, way=}.
local function open(name, values, key, fields)
  local out = ffi.new "atomo_codec *[1]"
  check(C.atomo_codec_new(name, #values, doubles(math.max(#values, 1), values), key.seed, key.way, out))
  local self = {seed = key.seed, h = ffi.gc(out[0], C.atomo_codec_free), shapes = {}, others = {}, count = 0,
    used = double1(),
    numbers = ffi.new "atomo_codec_stats", unbiased = C.atomo_codec_is_unbiased(out[0]) == 1,
    linear = C.atomo_codec_is_linear(out[0]) == 1}
  check(C.atomo_codec_set_ranks(self.h, C.atomo_mpi_ranks()))
  for field, value in pairs(fields) do self[field] = value end
  return setmetatable(self, Compressor)
end

--- Opens the C codec of a scripted compressor's adapter: "entry" or "_list". label: the name in its messages and
--- errors.
function Compressor.inner(name, values, key, label)
  local self = open(name, values, key, {name = label, text = label})
  check(C.atomo_codec_rename(self.h, self.text)) -- the string lives as long as self
  return self
end

--- Makes a compressor from a text or table: "svd:ratio=16,bits=8", "entry:atoms=100", {name = "svd", fold =
--- function(shape) return rows end}. In a table, budget = function(step, epoch, stats) ... end is a schedule
--- (budget_schedule.lua), and overrides = {{pattern, other}, ...} encodes tensors of matching names differently
--- (overrides.lua). opts.seed (default 0) and opts.way ("up"; "down" for averages that are encoded again, so that their
--- draws are independent of the averaged messages) key the random streams. opts.share: the fraction of a budget in
--- bytes that it may spend. opts.standard = {option = value}: other defaults, for options that the compressor has.
---@param text string|table
---@param opts table?
---@return atomo.Compressor
---@usage atomo.compressor "svd:ratio=16,bits=8" .name --> svd
local function compressor(text, opts)
  local entry, values, fold, more = spec.read(text)
  for key in pairs(opts or {}) do
    if not (key == "seed" or key == "way" or key == "share" or key == "standard") then
      raise(("compressor: unknown option '%s', options are seed, way, share, standard"):format(brief(key)))
    end
  end
  for key, value in pairs(opts and opts.standard or {}) do spec.put_default(entry, values, key, value) end
  local key, canonical = key_of(opts), spec.text(entry, values, fold, more)
  local share = opts and opts.share
  if share then spec.cut_budget(entry, values, share) end
  local self
  if entry.make then
    self = entry.make(canonical, values, key, Compressor.inner) -- written in Lua
  else
    self = open(entry.name, values, key, {name = entry.name, text = canonical, fold = fold,
      overrides = more.overrides})
  end
  self.schedule, self.share, self.step_budget = more.budget, share, spec.step_budget(entry, values)
  return self
end

local line = {
  __tostring = function(e)
    return ("%-10s %s%s"):format(e.name, e.summary, e.missing and (" (not here: %s)"):format(e.missing) or "")
  end,
}

--- Returns a list of all compressors, {name=, summary=, source=, unbiased=, linear=, options=} each; tostring(list[i])
--- gives one line. `missing`: why one cannot be used on this machine or by this build, nil if it can.
---@return {name: string, summary: string, source: string, unbiased: boolean, linear: boolean, options: table,
--- missing: string?}[]
---@usage #atomo.compressors() > 10 --> true
local function compressors()
  local list = {}
  for i, entry in ipairs(spec.known()) do
    local why = entry.number and ffi.string(C.atomo_codec_missing(entry.number)) or ""
    entry.missing = why ~= "" and why or nil
    list[i] = setmetatable(entry, line)
  end
  return list
end

--- Makes the arrays that are passed to C large enough for n tensors.
local function reserve(self, n)
  if n <= (self.room or 0) then return end
  self.room = math.max(n, 2 * (self.room or 0))
  self.ids = ffi.new("int32_t[?]", self.room)
  self.handles = ffi.new("const atomo_tensor *[?]", self.room)
  self.lengths = doubles(self.room)
end

local shape_buffer = doubles(C.ATOMO_MAX_DIM)

--- Plans tensor number i for a shape (a table), unless it is planned for it already, and for the override of this name.
--- name: for errors and overrides.
local function plan(self, i, shape, name)
  arguments.tensor_number(self.name, i)
  if #shape > C.ATOMO_MAX_DIM then raise(("%s: tensor %d has %d dimensions"):format(self.name, i, #shape)) end
  for d = 1, #shape do shape_buffer[d - 1] = shape[d] end
  local other = overrides.find(self.overrides, name)
  local as_before = not name or other == self.others[i]
  if self.shapes[i] and as_before and C.atomo_codec_is_planned(self.h, i, #shape, shape_buffer) == 1 then return end
  local rows = 0
  if self.fold then
    rows = self.fold(shape)
    if type(rows) ~= "number" then
      raise(("%s: fold returned %s for %s, expected the number of rows"):format(self.name, brief(rows),
        "[" .. table.concat(shape, ",") .. "]"))
    end
  end
  for d = 1, #shape do shape_buffer[d - 1] = shape[d] end
  if other then
    local n = other.values and #other.values or 0
    check(C.atomo_codec_plan_as(self.h, i, #shape, shape_buffer, rows, name, other.atoms, n,
      doubles(math.max(n, 1), other.values or {0})))
  else
    check(C.atomo_codec_plan(self.h, i, #shape, shape_buffer, rows, name))
  end
  self.others[i] = other
  self:planned(i, {unpack(shape)})
end

Compressor.plan = plan

--- Records that tensor i has been planned for this shape.
function Compressor:planned(i, shape)
  self.shapes[i] = shape
  self.count = math.max(self.count, i)
  state.planned(self, i)
end

--- Records that encode_step will get tensors 1..n, which have been planned.
function Compressor:prepare_planned(n)
  reserve(self, n)
  for i = 1, n do self.ids[i - 1] = i end
  self.prepared = n
end

--- Returns g, or a copy if it is not contiguous.
local function contiguous(g) return g:is_contiguous() and g or g:contiguous() end

--- Sets the epoch that is passed to a budget schedule.
---@param epoch integer
---@usage c:set_epoch(1)
function Compressor:set_epoch(epoch) self.epoch = arguments.epoch(self.name, epoch) end

--- Returns what an override encodes a tensor called `name` with: "none" or an atom set's name; nil without an override.
function Compressor:override_of(name)
  local other = overrides.find(self.overrides, name)
  return other and other.atoms
end

--- Plans tensors 1..n for encode_step or push. With `more`, a budget in ratio= or bytes= is for the whole step.
---@param shapes table     list of shapes
---@param names string[]?  for errors and overrides
---@param more table?      step_bytes: bytes of all gradients of the step; dense_bytes: of those sent uncompressed;
---  ranks: see set_ranks
function Compressor:prepare(shapes, names, more)
  local entries, bytes = arguments.plan_all(self, shapes, names, more, plan)
  if more then check(C.atomo_codec_reserve(self.h, entries, bytes)) end
  if more and more.ranks then self:set_ranks(more.ranks) end
  self:prepare_planned(#shapes)
end

--- Returns the largest total length, in bytes, of the messages of all planned tensors.
function Compressor:wire_max() return C.atomo_codec_wire_max(self.h, 0) end

--- Says that the messages of `ranks` ranks are averaged, each encoded with a rank below that, so that their draws can
--- cancel (option together). At first: the ranks of the program; an exchange sets those of its communicator.
---@param ranks integer
---@usage c:set_ranks(4)
function Compressor:set_ranks(ranks)
  check(C.atomo_codec_set_ranks(self.h, number.expect_whole(ranks, self.name .. ": ranks", 1, 2 ^ 24)))
end

local budget_names = {"atoms", "ratio", "bytes"}
--- Changes the budget from the next encode on: c:set_budget{ratio = 32}.
---@param budget {atoms: number?, ratio: number?, bytes: number?} one of them
---@usage c:set_budget {ratio = 32}
function Compressor:set_budget(budget)
  if type(budget) ~= "table" then
    raise(("%s: set_budget: budget is %s, expected one of {atoms=}, {ratio=}, {bytes=}"):format(self.name,
      number.text(budget)))
  end
  for key, value in pairs(budget) do
    if key ~= "atoms" and key ~= "ratio" and key ~= "bytes" then
      raise(("%s: set_budget: unknown budget '%s'%s; budgets are atoms, ratio, bytes"):format(self.name, brief(key),
        spec.suggest(brief(key), budget_names)))
    elseif type(value) ~= "number" or value <= 0 or value ~= value then
      raise(("%s: set_budget: %s is %s, expected a number above 0"):format(self.name, key, brief(value)))
    end
  end
  check(C.atomo_codec_set_budget(self.h, budget.atoms or 0, budget.ratio or 0, budget.bytes or 0))
end

--- Encodes list[j] as tensor number ids[j], which must be planned; returns the messages.
local function encode_list(self, list, ids, step, rank)
  reserve(self, #list)
  local most = 0
  for i, g in ipairs(list) do
    self.ids[i - 1], self.handles[i - 1] = ids[i], g.h
    most = most + C.atomo_codec_wire_max(self.h, ids[i])
  end
  local buffer = T.outside_scope(T.empty, {math.max(most, 1)}, "u8")
  local out = ffi.cast(u8_pointer, buffer.h.data)
  check(C.atomo_codec_encode(self.h, #list, self.ids, self.handles, step, rank, out, most, self.lengths))
  local messages, at = {}, 0
  for i = 1, #list do
    local n = self.lengths[i - 1]
    messages[i] = message.new(ids[i], out + at, n)
    at = at + n
  end
  buffer:free()
  self.last_ids = ids
  for i = 1, self.prepared or 0 do self.ids[i - 1] = i end
  return messages
end

--- Encodes one gradient to a message. Draws are keyed by (seed, step, rank, tensor): the same key gives the same bytes.
---@param g atomo.Tensor
---@param opts {step: integer?, tensor: integer?, rank: integer?}?
---@return atomo.Message
---@usage c:encode(g, {step = 3}).nbytes < 512 --> true
function Compressor:encode(g, opts)
  local step, rank, i = arguments.keys(opts, "encode", self.name)
  g = contiguous(T.expect(g, self.name .. ": gradient", "f32"))
  schedule.apply(self, step)
  plan(self, i, g:shape())
  return encode_list(self, {g}, {i}, step, rank)[1]
end

--- Encodes all gradients of a step under one budget; tensor i is list[i]. The price mu is exact for these gradients.
---@param list atomo.Tensor[]
---@param opts {step: integer?, rank: integer?}?
---@return atomo.Message[]
---@usage #c:encode_all {g, g} --> 2
function Compressor:encode_all(list, opts)
  local step, rank = arguments.keys(opts, "encode_all", self.name)
  local grads, ids = {}, arguments.gradient_list(self.name, "encode_all", list)
  schedule.apply(self, step)
  for i, g in ipairs(list) do
    grads[i] = contiguous(g)
    plan(self, i, g:shape())
  end
  return encode_list(self, grads, ids, step, rank)
end

--- Decodes a message to a new tensor, the estimate of the gradient.
---@param msg atomo.Message
---@return atomo.Tensor
---@usage c:decode(c:encode(g)):size(1) --> 16
function Compressor:decode(msg)
  local data, size = message.bytes_of(self.name, msg, "decode")
  local i = check(C.atomo_codec_tensor_of(data, size))
  local shape = self.shapes[i]
  if not shape then raise(("%s: decode: the message is for tensor %d, which is not planned"):format(self.name, i)) end
  local out = T.zeros(shape)
  check(C.atomo_codec_decode_add(self.h, i, -1, -1, data, size, 1, out.h, self.used))
  message.whole(self.name, "decode", self.used[0], size)
  return out
end

--- Adds scale times the decoded message to acc, without a dense copy. Raises for a damaged message.
---@param msg atomo.Message
---@param scale number
---@param acc atomo.Tensor of the gradient's shape
---@return atomo.Tensor acc
---@usage c:decode_add(c:encode(g), 0.5, atomo.zeros(16, 8))
function Compressor:decode_add(msg, scale, acc)
  local data, size = message.bytes_of(self.name, msg, "decode_add")
  arguments.accumulator(self.name, scale, acc)
  check(C.atomo_codec_length_of(data, size, self.used))
  message.whole(self.name, "decode_add", math.min(self.used[0], size), size) -- raises before acc is changed
  check(C.atomo_codec_decode_add(self.h, 0, -1, -1, data, size, scale, acc.h, self.used))
  C.atomo_tensor_touch(acc.h)
  return acc
end

--- Converts acc = scale * (sum of all ranks' decoded messages of tensor i) to the update, in place. It changes acc only
--- for compressors that vote (signsgd:vote=true).
function Compressor:finish(acc, scale, i)
  T.expect(acc, self.name .. ": finish: acc", "f32")
  arguments.tensor_number(self.name, i or 1)
  check(C.atomo_codec_finish(self.h, i or 1, scale, acc.h))
  C.atomo_tensor_touch(acc.h)
  return acc
end

--- Returns the residual of error feedback (ef=true) of tensor i: the sum of all gradients minus the sum of all that was
--- sent.
---@param i integer
---@return atomo.Tensor
---@usage local e = atomo.compressor("topk:ratio=8,ef=true") e:encode(g, {tensor = 1}) e:residual(1)
function Compressor:residual(i)
  local out = T.out()
  arguments.tensor_number(self.name, i or 1)
  check(C.atomo_codec_residual(self.h, i or 1, out))
  return T.wrap(out[0])
end

--- Returns statistics of the last encode, encode_all, encode_step or streamed step, or of tensor i alone: nbytes,
--- atoms_expected, atoms_sent, variance (the closed form E||ghat - g||^2, with quantisation), square (||g||^2). For a
--- tensor encoded by `auto` also family ("rotated"). For `rotated` also bound: the least variance that any unbiased
--- code of nbytes has for normal entries with the energies of its classes.
---@param i integer? a tensor; default: all
---@return table
---@usage c:encode(g) assert(c:stats().nbytes > 0)
function Compressor:stats(i)
  local s = self.numbers
  if i ~= nil then arguments.tensor_number(self.name, i) end
  C.atomo_codec_get_stats(self.h, i or 0, s)
  local bound = C.atomo_codec_bound(self.h, i or 0)
  local family = i and ffi.string(C.atomo_codec_family(self.h, i)) or ""
  return {nbytes = f.number(s, "nbytes"), atoms_expected = f.number(s, "atoms_expected"),
    atoms_sent = f.number(s, "atoms_sent"), variance = f.number(s, "variance"), square = f.number(s, "square"),
    family = family ~= "" and family or nil, bound = bound > 0 and bound or nil}
end

for name, method in pairs(require "atomo.compress.streaming") do Compressor[name] = method end
for name, method in pairs(state.builtin) do Compressor[name] = method end

local declare = require "atomo.compress.custom.declare"
return {
  compressor = compressor, compressors = compressors, probabilities = require "atomo.compress.probabilities",
  basis = declare.basis, decomposition = declare.decomposition, codec = declare.codec, preset = spec.preset,
  Compressor = Compressor, spec = spec,
}
