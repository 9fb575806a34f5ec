--- Text for language models (stages 1 and 2): a file as ids of bytes or of a vocabulary's tokens (vocabulary.lua), and
-- batches of it sharded over ranks.
--   local text = atomo.text.open "book.txt"
--   local loader = atomo.text.loader {tokens = text.train, batch = 16, length = 128, rank = 0, size = 1, seed = 0}
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local number = require "atomo.core.number"
local O = require "atomo.tensor.check_options"
local same = require "atomo.comm.consistency"
local strict_fields = require "atomo.core.fields"
local batches = require "atomo.data.batch"
local vocabularies = require "atomo.data.vocabulary"
local whole = require "atomo.data.whole_option"
local ffi, C, raise = f.ffi, f.C, f.raise

local M = {vocabulary = vocabularies.vocabulary, train_vocabulary = vocabularies.train_vocabulary}

---@class atomo.Text
---@field train atomo.Tensor  i32 [n], ids from 0 to vocab - 1
---@field test atomo.Tensor   i32 [m], the last part of the text
---@field vocab integer       number of different bytes in the text, or of the vocabulary's tokens
---@field bytes integer       length of the text
---@field vocabulary atomo.Vocabulary?   nil: an id is a byte
local Text = strict_fields({}, "text", "train test vocab name chars id bytes", "test vocabulary chars id")
Text.__index = Text

--- Numbers the bytes that occur.
local function number_bytes(self, bytes)
  self.chars, self.id = {}, {}
  local seen = {}
  for i = 1, #bytes do seen[bytes:byte(i)] = true end
  for b = 0, 255 do
    if seen[b] then
      self.chars[#self.chars + 1] = string.char(b)
      self.id[b] = #self.chars - 1
    end
  end
  self.vocab = #self.chars
end

local function from_bytes(bytes, name, test_share, vocabulary)
  local self = setmetatable({name = name, bytes = #bytes, vocabulary = vocabulary}, Text)
  if vocabulary then self.vocab = vocabulary.size else number_bytes(self, bytes) end
  local all = self:encode(bytes)
  local test = math.floor(all:numel() * test_share)
  self.train, self.test = all:narrow(1, 1, all:numel() - test), all:narrow(1, all:numel() - test + 1, test)
  return self
end

local MOST = 2 ^ 31 - 2 ^ 16 -- the longest text in bytes: a LuaJIT string has less than 2^31

--- Returns all bytes of a file or pipe. Raises if a regular file's size has changed when it has been read.
local function read_all(path)
  local file, problem = io.open(path, "rb")
  if not file then raise(("text: %s"):format(problem)) end
  local size = file:seek "end"
  if size and file:seek "set" and size > MOST and size < 2 ^ 62 then -- seek on a folder gives 2^63 - 1
    file:close()
    raise(("text: %s has %.0f bytes, expected at most %.0f"):format(path, size, MOST))
  end
  local bytes, why = file:read "*a"
  local now = size and file:seek "end"
  file:close()
  if not bytes then raise(("text: %s: %s"):format(path, why)) end
  if size and size > 0 and now ~= #bytes then -- files in /proc report size 0
    raise(("text: %s has %.0f bytes, %d of them were read: it changed meanwhile"):format(path, now, #bytes))
  end
  return bytes
end

local function split(bytes, name, test_share, vocabulary)
  test_share = test_share == nil and 0.1 or test_share
  local share = number.of(test_share)
  if not share or not (share >= 0 and share < 1) then
    raise(("text: test_share is %s, expected a number from 0 to below 1"):format(brief(test_share)))
  end
  if vocabulary ~= nil and (type(vocabulary) ~= "table" or type(vocabulary.encode) ~= "function") then
    raise(("text: vocabulary is a %s, expected what atomo.text.vocabulary(path) returns"):format(type(vocabulary)))
  end
  return from_bytes(bytes, name, share, vocabulary)
end

--- Reads the text of a file. One id stands for one byte, or with a vocabulary for one of its tokens.
---@param path string
---@param test_share number?  fraction at the end that becomes the test text, default 0.1
---@param vocabulary atomo.Vocabulary?
---@return atomo.Text
---@usage pcall(atomo.text.open, "missing.txt") --> false
function M.open(path, test_share, vocabulary)
  if type(path) ~= "string" then raise(("text: path is a %s, expected a string"):format(type(path))) end
  local bytes = read_all(path)
  if #bytes < 2 then raise(("text: %s has %d bytes, expected 2 or more"):format(path, #bytes)) end
  return split(bytes, path, test_share, vocabulary)
end

--- As M.open, for a string.
---@param bytes string
---@param test_share number? fraction at the end that becomes the test text, default 0.1
---@param vocabulary atomo.Vocabulary?
---@return atomo.Text
---@usage atomo.text.of("hello, world").name --> text
function M.of(bytes, test_share, vocabulary)
  if type(bytes) ~= "string" then raise(("text: got a %s, expected a string"):format(type(bytes))) end
  return split(bytes, "text", test_share, vocabulary)
end

--- Returns the ids of a string, i32 [n]; raises for a byte that does not occur in the text.
function Text:encode(bytes)
  if self.vocabulary then return self.vocabulary:encode(bytes) end
  local t = T.outside_scope(T.empty, #bytes, "i32")
  local p = t:data()
  for i = 1, #bytes do
    local id = self.id[bytes:byte(i)]
    if not id then raise(("text: byte %d (%q) does not occur in %s"):format(i, bytes:sub(i, i), self.name)) end
    p[i - 1] = id
  end
  return t
end

--- Returns the string of ids, a tensor or a list.
function Text:decode(ids)
  if self.vocabulary then return self.vocabulary:decode(ids) end
  local parts = {}
  for i, id in ipairs(T.is_tensor(ids) and ids:totable() or ids) do parts[i] = self.chars[id + 1] end
  return table.concat(parts)
end

---@class atomo.TextLoader   data for atomo.train: batch.x and batch.y i32 [n, length], y one id later than x
---@field steps integer
local Loader = strict_fields({seeks = true, unit = "seq"}, "loader", "steps batch length rank size seed windows tokens",
  "close train test") -- see data/loader.lua
Loader.__index = Loader

local known = {tokens = true, batch = true, length = true, rank = true, size = true, seed = true, shuffle = O.flag}

--- Makes a loader: text.loader {tokens=, batch=16, length=128, rank=0, size=1, seed=0, shuffle=true}. The text is cut
--- into windows of `length` ids. Each window occurs once per epoch, on one rank, in an order that depends only
--- on (seed, epoch).
---@param o table
---@return atomo.TextLoader
---@usage atomo.text.loader({tokens = atomo.zeros(65, "i32"), batch = 2, length = 16}).batch --> 2
function M.loader(o)
  if type(o) ~= "table" then raise(("text.loader: got a %s, expected a table of options"):format(type(o))) end
  O.check("text.loader", o, known)
  T.expect(o.tokens, "text.loader: tokens", "i32")
  local self = setmetatable({tokens = o.tokens, shuffle = o.shuffle ~= false, buffers = {}}, Loader)
  self.batch, self.length = whole("text.loader", o, "batch", 16, 1), whole("text.loader", o, "length", 128, 1)
  self.size, self.seed = whole("text.loader", o, "size", 1, 1), whole("text.loader", o, "seed", 0, 0)
  self.rank = whole("text.loader", o, "rank", 0, 0)
  if self.rank >= self.size then
    raise(("text.loader: rank is %d of size %d, expected 0 to %d"):format(self.rank, self.size, self.size - 1))
  end
  self.windows = math.floor((o.tokens:numel() - 1) / self.length)
  if self.windows < 1 then
    raise(("text.loader: the text has %d ids, expected at least length + 1 = %d"):format(o.tokens:numel(),
      self.length + 1))
  end
  self.steps = math.ceil(self.windows / (self.batch * self.size))
  return self
end

--- Items for consistency.check, as of the image loader.
function Loader:identity()
  local items = same.data {{"tokens", self.tokens}}
  items[2] = {"shuffle", self.shuffle}
  return items
end

--- Returns the order of the windows in an epoch: a Fisher-Yates shuffle with a counter-based random stream.
local function order_of(self, epoch)
  local order = {}
  for i = 1, self.windows do order[i] = i - 1 end
  if not self.shuffle then return order end
  local stream, u = ffi.new "atomo_stream", ffi.new("float[?]", self.windows)
  stream.seed[0], stream.seed[1] = self.seed % 2 ^ 32, math.floor(self.seed / 2 ^ 32)
  stream.purpose, stream.step = C.ATOMO_RNG_SHUFFLE, epoch
  C.atomo_random_uniform(stream, 0, self.windows, u)
  for i = self.windows, 2, -1 do
    local j = math.floor(u[i - 1] * i) + 1
    order[i], order[j] = order[j], order[i]
  end
  return order
end

--- Returns the buffers x and y for n windows; they are made once per n and reused.
local function buffers_of(self, n)
  local pair = self.buffers[n]
  if not pair then
    pair = T.outside_scope(function()
      return {x = T.zeros(n, self.length, "i32"), y = T.zeros(n, self.length, "i32")}
    end)
    self.buffers[n] = pair
  end
  return pair
end

local function fill(self, batch, order, first)
  batches.finish(self)
  local pair, from, bytes = buffers_of(self, batch.n), self.tokens:data(), 4 * self.length
  local x, y = pair.x:data(), pair.y:data()
  for i = 0, batch.n - 1 do
    local at = order[first + i] * self.length
    ffi.copy(x + i * self.length, from + at, bytes)
    ffi.copy(y + i * self.length, from + at + 1, bytes)
  end
  return batches.make(self, batch, pair.x, pair.y)
end

--- Iterates over an epoch's batches, with the fields of the image loader's batches: for batch in loader:epoch(e) do ...
--- end If the last step has fewer windows than ranks, some ranks have n = 0.
---@param epoch integer   >= 0; determines the order
---@param first integer?  first step (default 1), to resume a run
function Loader:epoch(epoch, first)
  number.expect_whole(epoch, "text.loader: epoch", 0, 2 ^ 32 - 1)
  local step = number.expect_whole(first == nil and 1 or first, "text.loader: first step", 1, self.steps + 1) - 1
  local order = order_of(self, epoch)
  return function()
    if step >= self.steps then return nil end
    local start, batch = step * self.batch * self.size, {}
    batch.total = math.min(self.batch * self.size, self.windows - start)
    local a = math.floor(batch.total * self.rank / self.size)
    batch.n = math.floor(batch.total * (self.rank + 1) / self.size) - a
    step = step + 1
    batch.index, batch.steps = step, self.steps
    return fill(self, batch, order, start + a + 1)
  end
end

--- Frees the buffers.
function Loader:close() self.buffers, self.last_batch = {}, nil end

return M
