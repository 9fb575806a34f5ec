--- Output of a run (stage 10): the JSONL log, the progress line, tables and numbers for people.
-- A log has one JSON object per line, written without a buffer (files.lua): a killed run loses no complete line.
local f = require "atomo.ffi"
local brief = require "atomo.core.brief"
local files = require "atomo.core.files"
local json = require "atomo.core.json"
local C, raise = f.C, f.raise

local M = {encode = json.encode, decode = json.decode, null = json.null, array = json.array}

-- ---- JSONL -------------------------------------------------------------------------------------------------------

---@class atomo.Log
---@field path string?
local Log = {}
Log.__index = Log

--- Does the file end without a newline (the run that wrote it was killed)?
local function ends_cut(path)
  local file = io.open(path, "rb")
  if not file then return false end
  local size = file:seek "end" or 0
  local last = size > 0 and file:seek("set", size - 1) and file:read(1)
  file:close()
  return last ~= nil and last ~= false and last ~= "\n"
end

--- Opens a log for appending. With path nil it writes nothing, which ranks other than 0 use.
---@param path string?
---@return atomo.Log
---@usage atomo.log.open "run.jsonl"
function M.open(path)
  if path == nil then return setmetatable({}, Log) end
  if type(path) ~= "string" or path == "" then
    raise(("log: path is %s, expected a file name"):format(brief(path)))
  end
  local cut = ends_cut(path)
  local file = files.open("log", path, true)
  if cut then file:write "\n" end
  return setmetatable({path = path, file = file}, Log)
end

--- Appends one object as a line. The line is in the file when this returns; otherwise this raises the path and reason.
---@param event table
function Log:write(event)
  if type(event) ~= "table" then raise(("log: write got a %s, expected a table"):format(type(event))) end
  local ok, line = pcall(json.encode, event)
  if not ok then raise("log: " .. line) end
  if rawget(self, "path") and not self.file then raise(("log: %s is closed"):format(self.path)) end
  if self.file then self.file:write(line .. "\n") end
end

function Log:close()
  local file = self.file
  self.file = nil
  if file then file:close() end
end

--- Reads a log. A line that is no JSON (a killed run may leave a partial one) does not stop the reading.
---@param path string
---@return table[] events
---@return {line: integer, message: string}[] bad  the lines that could not be read
---@usage pcall(atomo.log.read, "missing.jsonl") --> false
function M.read(path)
  local file, why = io.open(path, "rb")
  if not file then raise(("log: cannot read %s"):format(why)) end
  local events, bad, number = {}, {}, 0
  for line in file:lines() do
    number = number + 1
    local ok, event = pcall(json.decode, line)
    if ok then events[#events + 1] = event
    else bad[#bad + 1] = {line = number, message = ("%s:%d: %s"):format(path, number, event)} end
  end
  file:close()
  return events, bad
end

-- ---- numbers for people ------------------------------------------------------------------------------------------

local function scaled(v, units, base)
  local i = 1
  while math.abs(v) >= base * 0.99995 and i < #units do
    v, i = v / base, i + 1
  end
  local digits = math.abs(v) < 9.995 and i > 1 and 2 or math.abs(v) < 99.95 and i > 1 and 1 or 0
  if i == 1 and v % 1 ~= 0 then digits = 1 end
  return ("%." .. digits .. "f"):format(v) .. units[i]
end

--- 1234567 -> "1.23 MB"
---@param n number
---@return string
---@usage atomo.log.bytes(1234567) --> 1.23 MB
function M.bytes(n) return scaled(n, {" B", " kB", " MB", " GB", " TB", " PB"}, 1000) end

--- 11173962 -> "11.2 M"
---@param n number
---@return string
---@usage atomo.log.count(11173962) --> 11.2 M
function M.count(n) return scaled(n, {"", " k", " M", " G", " T"}, 1000) end

--- Seconds: "12 ms", "4.2 s", "3m02s", "1h05m", "2d03h"
---@param s number seconds
---@return string
---@usage atomo.log.duration(3900) --> 1h05m
function M.duration(s)
  if s ~= s or s == math.huge or s == -math.huge then return "?" end
  if s < 0 then return "-" .. M.duration(-s) end
  if s < 0.9995 then return ("%.3g ms"):format(s * 1e3) end
  if s < 59.95 then return ("%.1f s"):format(s) end
  s = math.floor(s + 0.5)
  if s < 3600 then return ("%dm%02ds"):format(s / 60, s % 60) end
  if s < 86400 then return ("%dh%02dm"):format(s / 3600, s % 3600 / 60) end
  return ("%dd%02dh"):format(s / 86400, s % 86400 / 3600)
end

--- 15.84 -> "15.8x"
---@param r number
---@return string
---@usage atomo.log.ratio(15.84) --> 15.8x
function M.ratio(r)
  if r ~= r or math.abs(r) == math.huge then return "?" end
  return (r < 99.95 and "%.1fx" or "%.0fx"):format(r)
end

local function characters(text) return #text:gsub("[\128-\191]", "") end

--- Returns integer percentages of `whole` that add up to 100: "forward 57% other 43%". Amounts below half a percent,
--- and the rest of `whole`, are counted as other. If the parts exceed `whole`, percentages are of their sum.
---@param parts {[1]: string, [2]: number}[]  name, amount
---@param whole number
---@return string
---@usage atomo.log.shares({{"forward", 57}}, 100) --> forward 57% other 43%
function M.shares(parts, whole)
  local sum = 0
  for _, part in ipairs(parts) do sum = sum + part[2] end
  whole = math.max(whole, sum)
  if whole <= 0 then return "" end
  local texts, left, exact = {}, 100, 0
  for _, part in ipairs(parts) do
    local share = 100 * part[2] / whole
    if share >= 0.5 then
      exact = exact + share
      local shown = math.floor(exact + 0.5) - (100 - left) -- rounding the running sum keeps the total right
      left = left - shown
      if shown > 0 then texts[#texts + 1] = ("%s %d%%"):format(part[1], shown) end
    end
  end
  if left > 0 then texts[#texts + 1] = ("other %d%%"):format(left) end
  return table.concat(texts, " ")
end

--- Returns lines with names and values in two left-aligned columns.
---@param rows string[][]
---@return string
---@usage atomo.log.pairs {{"loss", "0.5"}}
function M.pairs(rows)
  local width, lines = 0, {}
  for _, row in ipairs(rows) do width = math.max(width, characters(row[1])) end
  for i, row in ipairs(rows) do
    lines[i] = ("  %s%s  %s"):format(row[1], (" "):rep(width - characters(row[1])), row[2])
  end
  return table.concat(lines, "\n")
end

-- ---- the terminal ------------------------------------------------------------------------------------------------

--- Columns of the terminal on stdout, 0 if stdout is not a terminal or cannot redraw a line (TERM=dumb).
function M.width()
  if os.getenv "TERM" == "dumb" then return 0 end
  return C.atomo_terminal_width(1)
end

--- Returns text in bold if stdout is a terminal and NO_COLOR is unset, else unchanged.
---@param text string
---@return string
---@usage atomo.log.bold "loss"
function M.bold(text)
  local no = os.getenv "NO_COLOR"
  if (no and no ~= "") or M.width() == 0 then return text end
  return "\27[1m" .. text .. "\27[0m"
end

--- Is a cell a number, with or without a unit? The name of a tensor, "0.weight", is none.
local function is_number(cell)
  return type(cell) == "number" or (type(cell) == "string" and cell:find "^[+-]?%d" ~= nil and
    not cell:find "^%d+%.%a")
end

--- Returns a table in aligned columns. The first row is the header; a column of numbers is right-aligned.
---@param rows (string|number)[][]
---@return string
---@usage atomo.log.table {{"loss", "steps"}, {0.5, 10}}
function M.table(rows)
  local widths, right = {}, {}
  for r, row in ipairs(rows) do
    for c = 1, #row do
      widths[c] = math.max(widths[c] or 0, characters(tostring(row[c])))
      if r > 1 and row[c] ~= "" and row[c] ~= "-" then right[c] = right[c] ~= false and is_number(row[c]) end
    end
  end
  local lines = {}
  for r, row in ipairs(rows) do
    local cells = {}
    for c = 1, #row do
      local text = tostring(row[c])
      local pad = (" "):rep(widths[c] - characters(text))
      cells[c] = right[c] and pad .. text or text .. pad
    end
    lines[r] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  if #rows > 1 then
    local total = -2
    for _, w in ipairs(widths) do total = total + w + 2 end
    table.insert(lines, 2, ("-"):rep(total))
  end
  return table.concat(lines, "\n")
end

M.progress = require("atomo.core.progress")(M)

return M
