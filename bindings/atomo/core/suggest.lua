--- Finds the word nearest to a misspelt one, for messages: "unknown option --bacth, did you mean --batch?".

--- Number of edits (insert, delete, change, swap of neighbours) that turn one word into the other.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = {[0] = i}
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

--- Returns the entry of list nearest to a misspelt word, ignoring case; nil if it takes more than a third of the word's
--- length in edits. An entry that begins with the word is near; of several the one with the fewest edits.
---@param word string
---@param list string[]
---@return string?
local function suggest(word, list)
  local best, least, edits
  local lower = word:lower()
  for _, candidate in ipairs(list) do
    local all = distance(lower, candidate:lower())
    local d = all
    if #lower >= 3 and candidate:sub(1, #lower):lower() == lower then d = math.min(d, 1) end
    if not least or d < least or d == least and all < edits then best, least, edits = candidate, d, all end
  end
  return least and least <= math.max(1, math.floor(#word / 3)) and best or nil
end

return suggest
