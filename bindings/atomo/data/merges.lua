--- The merges of a byte-pair encoding [Sennrich et al. 2016] (stage 1): learns them from a text, and applies one to a
-- list of ids. Learning makes a token of the pair of neighbours that occurs most often, again and again. Pairs are
-- counted once; a merge then changes only the counts of the words that contain it. A heap has the pairs by count;
-- entries whose count has changed are corrected when they reach its top.
local pretokens = require "atomo.data.pretokens"

local M = {}

local BASE = 2 ^ 21 -- more than the ids that there can be

--- Returns the number that stands for the pair of ids a, b.
---@param a integer
---@param b integer
---@return integer
function M.pair_of(a, b) return a * BASE + b end

--- Replaces every pair a, b in a list of ids by id, from the left.
---@param ids integer[]
---@param a integer
---@param b integer
---@param id integer
function M.apply(ids, a, b, id)
  local to, i, n = 0, 1, #ids
  while i <= n do
    to = to + 1
    if ids[i] == a and ids[i + 1] == b then
      ids[to], i = id, i + 2
    else
      ids[to], i = ids[i], i + 1
    end
  end
  for k = to + 1, n do ids[k] = nil end
end

-- ---- heap of pairs: the largest count first, then the smallest pair ------------------------------------------------

local function before(x, y) return x.count > y.count or x.count == y.count and x.pair < y.pair end

local function push(heap, entry)
  local i = #heap + 1
  while i > 1 do
    local up = math.floor(i / 2)
    if not before(entry, heap[up]) then break end
    heap[i], i = heap[up], up
  end
  heap[i] = entry
end

local function pop(heap)
  local top, last, n = heap[1], heap[#heap], #heap - 1
  heap[n + 1] = nil
  if n == 0 then return top end
  local i = 1
  while 2 * i <= n do
    local down = 2 * i
    if down < n and before(heap[down + 1], heap[down]) then down = down + 1 end
    if not before(heap[down], last) then break end
    heap[i], i = heap[down], down
  end
  heap[i] = last
  return top
end

-- ---- counts -------------------------------------------------------------------------------------------------------

--- Returns the different pre-tokens of a text in order of occurrence: {ids =, count =} each.
local function words_of(bytes, id_of_byte)
  local list, at = {}, {}
  for token in pretokens.each(bytes) do
    local word = at[token]
    if word then
      word.count = word.count + 1
    elseif #token > 1 then
      local ids = {}
      for i = 1, #token do ids[i] = id_of_byte[token:byte(i)] end
      word = {ids = ids, count = 1}
      at[token], list[#list + 1] = word, word
    end
  end
  return list
end

--- Adds `times` occurrences of each pair of a word. Pairs with token id (nil: all) are new in this word: it is added to
--- their words, and they to `new`. A merge makes no other pairs.
local function add_pairs(counts, where, word, times, new, id)
  local ids = word.ids
  for i = 1, #ids - 1 do
    local a, b = ids[i], ids[i + 1]
    local pair = M.pair_of(a, b)
    counts[pair] = (counts[pair] or 0) + times
    if new and (not id or a == id or b == id) then
      local holders = where[pair]
      if not holders then
        holders = {}
        where[pair] = holders
      end
      if holders[#holders] ~= word then holders[#holders + 1] = word end
      new[pair] = true
    end
  end
end

local function occurs(ids, a, b)
  for i = 1, #ids - 1 do
    if ids[i] == a and ids[i + 1] == b then return true end
  end
  return false
end

--- Pushes new pairs. The order of pushing does not matter: the heap's order is total.
local function push_new(heap, counts, new)
  for pair in pairs(new) do push(heap, {count = counts[pair], pair = pair}) end
end

--- Takes the most frequent pair out of the heap; nil if no pair occurs twice.
local function most_frequent(heap, counts)
  while #heap > 0 do
    local top = pop(heap)
    local now = counts[top.pair] or 0
    if now == top.count then return now >= 2 and top.pair or nil end
    if now >= 2 and now < top.count then push(heap, {count = now, pair = top.pair}) end
  end
  return nil
end

--- Calls add(a, b), which returns the id of the token that the pair of ids becomes, for one pair after the other, until
--- it returns nil or no pair occurs twice.
---@param bytes string
---@param id_of_byte table<integer, integer>
---@param add fun(a: integer, b: integer): integer|nil
function M.learn(bytes, id_of_byte, add)
  local counts, where, heap, new = {}, {}, {}, {}
  for _, word in ipairs(words_of(bytes, id_of_byte)) do add_pairs(counts, where, word, word.count, new) end
  push_new(heap, counts, new)
  while true do
    local pair = most_frequent(heap, counts)
    if not pair then return end
    local a, b = math.floor(pair / BASE), pair % BASE
    local id = add(a, b)
    if not id then return end
    new = {}
    for _, word in ipairs(where[pair]) do
      if occurs(word.ids, a, b) then
        add_pairs(counts, where, word, -word.count)
        M.apply(word.ids, a, b, id)
        add_pairs(counts, where, word, word.count, new, id)
      end
    end
    where[pair], counts[pair] = nil, nil
    push_new(heap, counts, new)
  end
end

return M
