--- Byte-pair encodings (stage 1): text as ids of frequent strings, in GPT-2's form. Any bytes can be encoded.
--   local vocabulary = atomo.text.train_vocabulary(bytes, 8000)
--   vocabulary:save "merges.txt"
--   atomo.text.open("book.txt", 0.1, atomo.text.vocabulary "merges.txt")
--
-- The file is GPT-2's merges.txt: the line "#version: 0.2", then the two tokens of one merge a line, in order. GPT-2's
-- characters stand for the bytes: those that Latin-1 can print for themselves, U+0100, ... for the other 68. In UTF-8.
-- Ids: 0 to 255 for the bytes in the order of these characters, then one for each new token in the order of its merge,
-- last <|endoftext|>. So GPT-2's own file gives GPT-2's 50257 ids.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local files = require "atomo.core.files"
local merges = require "atomo.data.merges"
local number = require "atomo.core.number"
local pretokens = require "atomo.data.pretokens"
local strict_fields = require "atomo.core.fields"
local ffi, raise = f.ffi, f.raise

local M = {}

local MOST = 2 ^ 20 -- ids
local END = "<|endoftext|>"

-- ---- bytes as characters -------------------------------------------------------------------------------------------

local function utf8(code)
  if code < 128 then return string.char(code) end
  return string.char(192 + math.floor(code / 64), 128 + code % 64)
end

--- Is byte b printable in Latin-1, and not white space or the soft hyphen?
local function printable(b) return b >= 33 and b <= 126 or b >= 161 and b <= 172 or b >= 174 end

local character_of, byte_of, id_of_byte, byte_order = {}, {}, {}, {}
for _, is_printable in ipairs {true, false} do
  for b = 0, 255 do
    if printable(b) == is_printable then
      local code = is_printable and b or 256 + #byte_order - 188 -- 188 bytes are printable
      character_of[b], byte_of[utf8(code)] = utf8(code), string.char(b)
      id_of_byte[b] = #byte_order
      byte_order[#byte_order + 1] = string.char(b)
    end
  end
end

local function as_characters(bytes) return (bytes:gsub(".", function(c) return character_of[c:byte()] end)) end

--- Returns the bytes of a token in a file, nil if it has other characters.
local function as_bytes(token)
  local parts = {}
  for c in token:gmatch "[%z\1-\127\192-\255][\128-\191]*" do
    if not byte_of[c] then return nil end
    parts[#parts + 1] = byte_of[c]
  end
  local bytes = table.concat(parts)
  return as_characters(bytes) == token and bytes or nil
end

-- ---- vocabularies --------------------------------------------------------------------------------------------------

---@class atomo.Vocabulary
---@field size integer   number of ids, <|endoftext|> included
---@field name string    the file
---@field merges table   list of {id, id}
---@field strings table  list of the tokens' bytes, of id 0 first
local Vocabulary = strict_fields({}, "vocabulary", "size name merges strings")
Vocabulary.__index = Vocabulary

local function new(name)
  local self = setmetatable({name = name, merges = {}, strings = {}, id = {}, rank = {}, known = {}}, Vocabulary)
  for i, c in ipairs(byte_order) do self.strings[i], self.id[c] = c, i - 1 end
  return self
end

--- Adds the merge of ids a and b; returns the id of the token. Two merges may give the same token.
local function add(self, a, b)
  local bytes = self.strings[a + 1] .. self.strings[b + 1]
  local id = self.id[bytes]
  if not id then
    id = #self.strings
    self.strings[id + 1], self.id[bytes] = bytes, id
  end
  self.merges[#self.merges + 1] = {a, b}
  self.rank[merges.pair_of(a, b)] = #self.merges
  return id
end

--- Adds <|endoftext|>, which encode never returns.
local function finish(self)
  self.strings[#self.strings + 1] = END
  self.size = #self.strings
  return self
end

--- Learns a vocabulary of `size` ids from a text: the 256 bytes, tokens made by merging the most frequent pairs, and
--- <|endoftext|>. It has fewer ids if no further pair occurs twice. The same text gives the same vocabulary.
---@param bytes string
---@param size integer at least 257
---@return atomo.Vocabulary
---@usage atomo.text.train_vocabulary("to be or not to be", 259).size --> 259
function M.train_vocabulary(bytes, size)
  if type(bytes) ~= "string" then raise(("train_vocabulary: text is a %s, expected a string"):format(type(bytes))) end
  size = number.expect_whole(size, "train_vocabulary: size", 257, MOST)
  local self = new "vocabulary"
  merges.learn(bytes, id_of_byte, function(a, b)
    if #self.strings + 1 >= size then return nil end
    return add(self, a, b)
  end)
  return finish(self)
end

--- Reads a vocabulary: a file that save has written, or GPT-2's merges.txt. Raises with the line for a damaged one.
---@param path string
---@return atomo.Vocabulary
---@usage pcall(atomo.text.vocabulary, "missing.txt") --> false
function M.vocabulary(path)
  if type(path) ~= "string" then raise(("vocabulary: path is a %s, expected a string"):format(type(path))) end
  local file, problem = io.open(path, "rb")
  if not file then raise(("vocabulary: %s"):format(problem)) end
  local text, why = file:read "*a"
  file:close()
  if not text then raise(("vocabulary: %s: %s"):format(path, why)) end
  local self, line = new(path), 0
  local function wrong(what) raise(("vocabulary: %s, line %d: %s"):format(path, line, what)) end
  if text ~= "" and text:sub(-1) ~= "\n" then raise(("vocabulary: %s: the last line is not complete"):format(path)) end
  for content in text:gmatch "([^\n]*)\n" do
    line = line + 1
    content = content:gsub("\r$", "")
    if not (line == 1 and content:find "^#version") then
      local left, right = content:match "^(%S+) (%S+)$"
      if not left then wrong(("'%s', expected two tokens"):format(content:sub(1, 40))) end
      local a, b = as_bytes(left), as_bytes(right)
      local x, y = a and self.id[a], b and self.id[b]
      if not (x and y) then wrong(("'%s' is neither a byte nor made by a line above"):format(x and right or left)) end
      if self.rank[merges.pair_of(x, y)] then wrong(("'%s' is a second time here"):format(content)) end
      if #self.strings + 1 >= MOST then wrong(("more than %d tokens"):format(MOST)) end
      add(self, x, y)
    end
  end
  return finish(self)
end

--- Writes the vocabulary. The file is complete or, if this fails, as before.
---@param path string
---@usage vocabulary:save "merges.txt"
function Vocabulary:save(path)
  local lines = {"#version: 0.2"}
  for i, pair in ipairs(self.merges) do
    lines[i + 1] = as_characters(self.strings[pair[1] + 1]) .. " " .. as_characters(self.strings[pair[2] + 1])
  end
  files.save("vocabulary", path, table.concat(lines, "\n") .. "\n")
end

--- Applies the first of the vocabulary's merges whose pair is in a list of ids; returns whether there was one.
local function apply_first_merge(self, ids)
  local best, a, b = math.huge, nil, nil
  for i = 1, #ids - 1 do
    local rank = self.rank[merges.pair_of(ids[i], ids[i + 1])]
    if rank and rank < best then best, a, b = rank, ids[i], ids[i + 1] end
  end
  if not a then return false end
  merges.apply(ids, a, b, self.id[self.strings[a + 1] .. self.strings[b + 1]])
  return true
end

--- Returns the ids of a pre-token, which are kept for its next occurrence.
local function ids_of(self, token)
  local ids = self.known[token]
  if not ids then
    ids = {}
    for i = 1, #token do ids[i] = id_of_byte[token:byte(i)] end
    while apply_first_merge(self, ids) do end
    self.known[token] = ids
  end
  return ids
end

--- Returns the ids of a string, i32 [n].
---@param bytes string
---@return atomo.Tensor
---@usage vocabulary:encode("not to"):numel() < 6 --> true
function Vocabulary:encode(bytes)
  if type(bytes) ~= "string" then raise(("vocabulary: text is a %s, expected a string"):format(type(bytes))) end
  local buffer, n = ffi.new("int32_t[?]", math.max(#bytes, 1)), 0
  for token in pretokens.each(bytes) do
    local ids = ids_of(self, token)
    for i = 1, #ids do buffer[n + i - 1] = ids[i] end
    n = n + #ids
  end
  self.known = {}
  local t = T.outside_scope(T.empty, n, "i32")
  ffi.copy(t:data(), buffer, 4 * n)
  return t
end

--- Returns the string of ids, a tensor or a list.
---@param ids atomo.Tensor|integer[]
---@return string
---@usage vocabulary:decode(vocabulary:encode "or not") --> or not
function Vocabulary:decode(ids)
  local parts = {}
  for i, id in ipairs(T.is_tensor(ids) and ids:totable() or ids) do
    parts[i] = self.strings[id + 1] or raise(("vocabulary: id %s, expected 0 to %d"):format(brief(id),
      self.size - 1))
  end
  return table.concat(parts)
end

return M
