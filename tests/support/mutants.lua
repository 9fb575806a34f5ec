--- Mutants: one-line faults that tests/mutate.lua plants. Each is {file=, line=, kind=, before=, after=}, in the order
-- of a file's lines, so that a list of files gives the same mutants everywhere.
local M = {}

local languages = {
  c = {comment = "//", open = "/*", close = "*/", unequal = "!=", logic = {{"&&", "||"}, {"||", "&&"}}},
  lua = {comment = "--", open = "--[[", close = "]]", unequal = "~=",
    logic = {{" and ", " or "}, {" or ", " and "}}},
}

--- Returns the text with comments, contents of strings and preprocessor lines replaced by spaces; positions stay the
--- same.
local function code_of(text, lang)
  local out, at = {}, 1
  local function blank(from, to) out[#out + 1] = text:sub(from, to):gsub("[^\n]", " ") end
  while at <= #text do
    local start = text:sub(at, at + 3)
    local stop
    if start:sub(1, #lang.open) == lang.open then
      stop = select(2, text:find(lang.close, at, true)) or #text
    elseif start:sub(1, 2) == lang.comment then
      stop = (text:find("\n", at, true) or #text + 1) - 1
    elseif lang == languages.c and start:sub(1, 1) == "#" and not text:sub(1, at - 1):match("[^\n]*$"):find "%S" then
      stop = at
      repeat stop = text:find("\n", stop + 1, true) or #text until text:sub(stop - 1, stop - 1) ~= "\\"
      stop = stop - 1
    elseif start:find "^[\"']" then
      local q = start:sub(1, 1)
      stop = at + 1
      while stop <= #text and text:sub(stop, stop) ~= q do
        stop = stop + (text:sub(stop, stop) == "\\" and 2 or 1)
      end
    elseif lang == languages.lua and start:find "^%[%[" then
      stop = select(2, text:find("]]", at, true)) or #text
    end
    if stop then
      blank(at, stop)
      at = stop + 1
    else
      out[#out + 1] = text:sub(at, at)
      at = at + 1
    end
  end
  return table.concat(out)
end

local operators = {
  {"[%w%]%)] ()%+ ", "-"}, {"[%w%]%)] ()%- ", "+"}, {"[%w%]%)] ()%* ", "/"}, {"[%w%]%)] ()/ ", "*"},
  {" ()< ", "<="}, {" ()<= ", "<"}, {" ()> ", ">="}, {" ()>= ", ">"},
}

-- First words of C lines that are more than one statement.
local kept = {}
for word in ("return const static double float int bool void size_t if for else while do case"):gmatch "%w+" do
  kept[word] = true
end

--- Calls add(kind, from, to, new) for every possible fault of a line: bytes from .. to are replaced by new.
local function faults(code, lang, add)
  for _, o in ipairs(operators) do
    for at in code:gmatch(o[1]) do
      local width = code:sub(at, at + 1):find "^[<>]=" and 2 or 1
      add("operator", at, at + width - 1, o[2])
    end
  end
  for at in code:gmatch "()== " do add("operator", at, at + 1, lang.unequal) end
  for at in code:gmatch("()" .. lang.unequal:gsub("[~!]", "%%%0") .. " ") do add("operator", at, at + 1, "==") end
  for _, o in ipairs(lang.logic) do
    for at in code:gmatch("()" .. o[1]) do add("operator", at, at + #o[1] - 1, o[2]) end
  end
  for at, number, stop in code:gmatch "%f[%w_.]()(%d+)()%f[^%w_.]" do
    add("constant", at, stop - 1, ("%.0f"):format(tonumber(number) + 1))
    if number == "1" then add("constant", at, stop - 1, "0") end
  end
  for name, from, inside, to in code:gmatch "([%w_]+)%(()([%w_]+, [%w_%.%[%]]+)()[,%)]" do
    local a, b = inside:match "^(.-), (.*)$"
    local symmetric = name:lower():find "m[ai][xn]$"
    if a ~= b and not symmetric then add("arguments", from, to - 1, b .. ", " .. a) end
  end
  if lang == languages.c then
    local from, inside, to = code:match "^%s*if %(()(.*)()%) [%w_].*;%s*$"
    if not from then from, inside, to = code:match "^%s*if %(()(.*)()%)%s*{?%s*$" end
    if from then add("condition", from, to - 1, "!(" .. inside .. ")") end
    from = code:match "^%s*()[%w_>%.%[%]%(%*%-%+&]+[ %(].*;%s*$"
    local _, opened = code:gsub("%(", "")
    local _, closed = code:gsub("%)", "")
    if from and code:find "[=%(%+%-]" and not kept[code:match "^%s*(%w*)"] and opened == closed then
      add("statement", from, #code, ";")
    end
  else
    local from, inside, to = code:match "^%s*e?l?s?e?if ()(.*)() then"
    if from then add("condition", from, to - 1, "not (" .. inside .. ")") end
    from = code:match "^%s*()[%w_%.:%[%]]+%(.*%)%s*$" or code:match "^%s*()[%w_%.%[%], ]+ = [^{]*$"
    if from and not code:find "^%s*local%f[%W]" and not code:find "function" then
      add("statement", from, #code, "do end")
    end
  end
end

--- Returns the mutants of a file's text.
---@param file string  its name, which says the language
---@param text string
---@return table[]
function M.of(file, text)
  local lang, list, number, at = languages[file:match "%.(%a+)$"], {}, 0, 1
  local code = code_of(text, lang)
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    faults(code:sub(at, at + #line - 1), lang, function(kind, from, to, new)
      local after = line:sub(1, from - 1) .. new .. line:sub(to + 1)
      list[#list + 1] = {file = file, line = number, kind = kind, before = line, after = after}
    end)
    at = at + #line + 1
  end
  return list
end

--- Returns the text with the mutant.
function M.plant(text, mutant)
  local number, out = 0, {}
  for line in text:gmatch "([^\n]*)\n" do
    number = number + 1
    if number == mutant.line then
      assert(line == mutant.before, mutant.file .. " is not the file that the mutant was made for")
      line = mutant.after
    end
    out[#out + 1] = line
  end
  return table.concat(out, "\n") .. "\n"
end

--- Shuffles a list; the same seed gives the same order on every machine.
function M.shuffle(list, seed)
  local state = seed % 2147483646 + 1
  local function draw(n) -- the minimal standard generator: exact in doubles
    state = state * 16807 % 2147483647
    return 1 + state % n
  end
  for i = #list, 2, -1 do
    local j = draw(i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

return M
