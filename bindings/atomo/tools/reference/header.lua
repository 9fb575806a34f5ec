--- Reads a public C header as the reference needs it: sections of blocks, a comment and the declarations below it.

local M = {}

--- Returns a comment's lines without stars, and the index of the line after it.
local function comment_at(lines, i)
  local list = {}
  repeat
    local text = lines[i]
    list[#list + 1] = text:gsub("%s*%*/%s*$", ""):gsub("^/%*%s?", ""):gsub("^ %*%s?", "")
    i = i + 1
  until text:find("*/", 1, true) or not lines[i]
  return list, i
end

--- Returns the names that declarations define: functions first, else types.
local function names_of(code)
  local functions, types = {}, {}
  local plain = code:gsub("/%*.-%*/", "")
  for name in plain:gmatch "ATOMO_API[^;(]-([%w_]+)%s*%(" do functions[#functions + 1] = name end
  for name in plain:gmatch "typedef struct [%w_]+%s*%b{}%s*([%w_]+);" do types[#types + 1] = name end
  for name in plain:gmatch "typedef struct [%w_]+ ([%w_]+);" do types[#types + 1] = name end
  for _, name in ipairs(types) do functions[#functions + 1] = name end
  return functions
end

local function finished(block)
  local code = table.concat(block.code, "\n")
  block.names = names_of(code)
  block.code = code:gsub("ATOMO_API (%w+)\n", "%1 "):gsub("ATOMO_API ", ""):gsub("\n          ", "\n") -- stay aligned
  return block
end

--- Parses a header: {name =, intro = lines, sections = {{title =, blocks = {{text = lines, code =, names =}}}}}.
---@param path string
---@return table
function M.read(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  local intro, i = comment_at(lines, 1)
  local parsed = {name = path:match "[^/]*$", intro = intro, sections = {}}
  local blocks, block
  local function begin(text)
    block = {text = text, code = {}}
    table.insert(blocks, block)
  end
  while lines[i] do
    local line = lines[i]
    local title = line:match "^/%* %-%-%-%- (.-) %-+ %*/$"
    local name, value, meaning = line:match '^%s*X%(([%w_]+), (%-?%d+), "(.-)"%)'
    if title then
      blocks, block = {}, nil
      table.insert(parsed.sections, {title = title, blocks = blocks})
      i = i + 1
    elseif not blocks then
      i = i + 1 -- guards and what makes the header C++ and a cdef
    elseif line:find "^/%*" then
      local text
      text, i = comment_at(lines, i)
      begin(text)
    else
      local declares = line:find "%S" and not line:find "^#" and not line:find "^}$" and not line:find "ATOMO_STATUS"
      if name then line = ("ATOMO_%s = %s, /* %s */"):format(name, value, meaning) end
      if name or declares then
        if not block then begin {} end
        table.insert(block.code, line)
      end
      i = i + 1
    end
  end
  for _, section in ipairs(parsed.sections) do
    for k, each in ipairs(section.blocks) do section.blocks[k] = finished(each) end
  end
  return parsed
end

return M
