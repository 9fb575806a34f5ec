--- Reads tables of text with a header: one sample per line, one column for the label, the others features (stage 1).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local O = require "atomo.tensor.check_options"
local suggest = require "atomo.core.suggest"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local M = {}

M.options = {
  label = true, task = O.one_of("classes", "regression"), separator = true, standardise = O.flag,
}

local function open(path, separator)
  if separator == nil then separator = path:find "%.tsv$" and "\t" or "," end
  if type(separator) ~= "string" or #separator ~= 1 then
    raise(("csv: separator is %s, expected one character"):format(brief(separator)))
  end
  local out = ffi.new "atomo_csv *[1]"
  check(C.atomo_csv_open(path, separator:byte(), out))
  return ffi.gc(out[0], C.atomo_csv_close)
end

--- Returns the columns' names. Raises for a first line that is a row (all numbers, and no count from 0 or 1), and for a
--- column without a name, which is the index that pandas writes: it would be a feature.
local function header(table_, path)
  local names, numbers, counts = {}, true, {[0] = true, true}
  for k = 1, C.atomo_csv_columns(table_) do
    local name = ffi.string(C.atomo_csv_field(table_, 0, k - 1)):match "^%s*(.-)%s*$"
    names[k], numbers = name, numbers and tonumber(name) ~= nil
    for first in pairs(counts) do counts[first] = tonumber(name) == k - 1 + first or nil end
    if name == "" then
      raise(("csv: %s: column %d has no name; if it is an index, leave it out (pandas: index=False)"):format(path, k))
    end
  end
  if numbers and not next(counts) then
    raise(("csv: %s: the first line is %s, expected the columns' names"):format(path, table.concat(names, ", ")))
  end
  return names
end

local usual = {"label", "labels", "class", "target", "y"}

--- Returns the number of the label's column: the one that the option names, else one with a usual name, else the last.
local function label_column(path, names, label)
  local at = {}
  for k, name in ipairs(names) do
    if at[name] and (label == name or label == nil) then
      raise(("csv: %s: two columns are '%s'"):format(path, name))
    end
    at[name] = k
  end
  if label ~= nil then
    local near = suggest(brief(label), names)
    return at[label] or raise(("csv: %s has no column '%s'%s; columns are %s"):format(path, brief(label),
      near and (", did you mean '%s'?"):format(near) or "", table.concat(names, ", ")))
  end
  for k, name in ipairs(names) do
    for _, word in ipairs(usual) do
      if name:lower() == word then return k end
    end
  end
  return #names
end

local function numbers(table_, columns, keep)
  local skip, out = ffi.new("uint8_t[?]", columns), T.out()
  for k = 1, columns do skip[k - 1] = keep(k) and 0 or 1 end
  check(C.atomo_csv_numbers(table_, skip, out))
  return T.wrap(out[0])
end

--- Returns the texts of the label's column, whether all of them are whole numbers, and whether all are numbers.
local function texts_of(table_, column)
  local texts, whole, numeric = {}, true, true
  for i = 1, tonumber(C.atomo_csv_rows(table_)) do
    local text = ffi.string(C.atomo_csv_field(table_, i, column - 1)):match "^%s*(.-)%s*$"
    local v = text:find "^[-+.%deE]+$" and tonumber(text)
    texts[i], numeric, whole = text, numeric and v ~= nil, whole and v ~= nil and v % 1 == 0
  end
  return texts, whole, numeric
end

--- Labels that stand for a missing value, or for one that is not finite, in a column of numbers.
local missing = {na = true, ["n/a"] = true, nan = true, null = true, none = true, inf = true, infinity = true}

--- Raises for a row without a label. If option task does not say what the labels are, also for a column of numbers in
--- which some are missing or no numbers: they would become class names.
local function check_labels(path, texts, task)
  local number_row, fraction_row, other_row, missing_row
  for i, text in ipairs(texts) do
    local v = text:find "^[-+.%deE]+$" and tonumber(text)
    if text == "" then raise(("csv: %s: row %d has no label"):format(path, i)) end
    number_row = number_row or v and i
    fraction_row = fraction_row or v and v % 1 ~= 0 and i
    other_row = other_row or not v and i
    missing_row = missing_row or missing[text:lower():gsub("^[-+]", "")] and i
  end
  local odd = fraction_row and other_row or number_row and missing_row
  if odd and not task then
    local row = fraction_row or number_row
    raise(("csv: %s: row %d has the label '%s', row %d the number %s: leave the row out, or say task = 'classes'")
      :format(path, odd, texts[odd], row, texts[row]))
  end
end

--- Returns a decimal number in a form that equal numbers share, with all digits: "-15e-1" for "-1.50". Of other texts,
--- the text.
local function exact_form(text)
  local sign, whole, fraction, power = text:match "^([-+]?)(%d*)%.?(%d*)[eE]?([-+]?%d*)$"
  if not sign or whole .. fraction == "" then return text end
  local digits, zeros = (whole .. fraction):match "^0*(.-)(0*)$"
  if digits == "" then return "0" end
  return ("%s%se%d"):format(sign == "-" and sign or "", digits, (tonumber(power) or 0) - #fraction + #zeros)
end

--- Is the first text a better name for a class? The shorter one, of equal length that with the lower bytes.
local function is_better(a, b) return #a < #b or #a == #b and a < b end

--- Returns class ids and class names. If all labels are numbers, equal ones are one class; the names are in the order
--- of the numbers. Otherwise they are the distinct texts, sorted by bytes.
local function classes_of(path, texts, numeric, like)
  local form = numeric and exact_form or function(text) return text end
  local name_of, known, names = {}, {}, like and like.names or {}
  for _, text in ipairs(texts) do
    local key = form(text)
    if not name_of[key] or is_better(text, name_of[key]) then name_of[key] = text end
  end
  if not like then
    for _, name in pairs(name_of) do names[#names + 1] = name end
    table.sort(names, numeric and function(a, b)
      local x, y = tonumber(a), tonumber(b)
      return x < y or x == y and a < b
    end or nil)
  end
  for i, name in ipairs(names) do known[form(name)] = i - 1 end
  local ids = {}
  for i, text in ipairs(texts) do
    ids[i] = known[form(text)] or raise(("csv: %s: row %d has the class '%s', which the training set lacks"):format(
      path, i, text))
  end
  return ids, names
end

--- Subtracts the mean of each column and divides by its standard deviation, both of the first part, in both parts.
---@param part table  of the training set
---@param other table?
function M.standardise(part, other)
  T.outside_scope(function()
    local x = part.set.x
    local mean = x:mean(1)
    local d = x - mean
    -- Squares of the differences could overflow or vanish, so a column is divided by a power of two, which is exact.
    local scale = d:abs():max(1)
    local s = scale:data()
    for i = 0, scale:numel() - 1 do s[i] = s[i] > 0 and 2 ^ (select(2, math.frexp(s[i])) - 1) or 1 end
    local q = d / scale
    local std = (q * q):mean(1):sqrt() * scale
    local p = std:data()
    for i = 0, std:numel() - 1 do p[i] = p[i] > 0 and p[i] or 1 end -- a column that is constant
    part.mean, part.std, part.set.x = mean, std, d / std
    if other then other.set.x = (other.set.x - mean) / std end
  end)
end

--- Reads a table. like: the part (of the training set) whose columns and classes it must have.
---@return table part  {set = {x = f32 [n,features], y = i32 [n] or f32 [n]}, names = classes?, columns=, label=}
function M.read(path, options, like)
  local table_ = open(path, options.separator)
  local columns = header(table_, path)
  if #columns < 2 then
    raise(("csv: %s has one column, '%s', expected features and a label: separator = ';' or '\\t' if that divides the "
      .. "fields"):format(path, columns[1]:sub(1, 40)))
  end
  if like and table.concat(columns, "\0") ~= table.concat(like.columns, "\0") then
    raise(("csv: %s has the columns %s, the training set %s"):format(path, table.concat(columns, ", "),
      table.concat(like.columns, ", ")))
  end
  local label = label_column(path, columns, options.label)
  local texts, whole, numeric = texts_of(table_, label)
  check_labels(path, texts, options.task or like and like.task)
  local task = options.task or (numeric and not whole and "regression" or "classes")
  if like then task = like.task end
  local part = {columns = columns, label = columns[label], task = task}
  return T.outside_scope(function()
    local set = {x = numbers(table_, #columns, function(k) return k ~= label end), n = #texts}
    part.set = set
    if task == "classes" then
      local ids
      part.numeric = numeric and (not like or like.numeric)
      ids, part.names = classes_of(path, texts, part.numeric, like)
      set.y, set.classes = T.tensor(ids, "i32"), #part.names
    else
      set.y = numbers(table_, #columns, function(k) return k == label end):view(set.n)
    end
    C.atomo_csv_close(ffi.gc(table_, nil))
    return part
  end)
end

return M
