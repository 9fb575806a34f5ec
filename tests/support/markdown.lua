--- Parses a Markdown page for the specs of the documents: code blocks, code spans, links, headings.

local M = {}

---@class markdown.Block
---@field language string   first word of the fence's info string
---@field marks string      the other words
---@field line integer      line of the opening fence
---@field lines string[]

--- Returns GitHub's anchor of a heading.
function M.anchor(heading)
  local text = heading:gsub("%[([^%]]*)%]%([^)]*%)", "%1"):gsub("`", ""):lower()
  return (text:gsub("[^%w%s_\128-\255-]", ""):gsub("%s", "-"))
end

local function blank(line) return not line:find "%S" end

--- Returns the page's parts: blocks, prose (one string, in which lines of blocks are empty), anchors, and indented
--- (lines of code outside fences).
---@param text string
function M.parse(text)
  local page = {blocks = {}, anchors = {}, indented = {}}
  local prose, open, before, in_code = {}, nil, "", false
  local number = 0
  for line in (text:gsub("\n?$", "\n")):gmatch "(.-)\n" do
    number = number + 1
    local fence = line:match "^%s*```(.*)$"
    if fence and open then
      open, prose[number] = nil, ""
    elseif fence then
      local language, marks = fence:match "^%s*(%S*)%s*(.-)%s*$"
      open = {language = language, marks = marks, line = number, lines = {}}
      page.blocks[#page.blocks + 1], prose[number] = open, ""
    elseif open then
      open.lines[#open.lines + 1], prose[number] = line, ""
    else
      local heading = line:match "^#+%s+(.*)$"
      if heading then page.anchors[M.anchor(heading)] = true end
      in_code = line:find "^    %S" ~= nil and (in_code or blank(before))
      if in_code then page.indented[#page.indented + 1] = number end
      prose[number] = line
    end
    before = line
  end
  page.open = open -- a fence that is not closed, or nil
  page.prose = table.concat(prose, "\n")
  return page
end

--- Calls take(line number, capture) for each match of a pattern with one capture.
function M.each(text, pattern, take)
  local at, number, counted = 1, 1, 1
  while true do
    local from, to, found = text:find(pattern, at)
    if not from then return end
    for _ in text:sub(counted, from - 1):gmatch "\n" do number = number + 1 end
    counted = from
    take(number, found)
    at = to + 1
  end
end

--- Calls take(line number, text) for each code span of the prose.
function M.spans(page, take) M.each(page.prose, "`([^`]+)`", take) end

--- Calls take(line number, target) for each link and picture.
function M.links(page, take)
  M.each(page.prose:gsub("`[^`\n]*`", function(span) return ("x"):rep(#span) end), "%]%(([^)%s]+)%)", take)
end

--- Returns the commands of a shell block: {line=, words=}, split at new lines, ;, &&, || and |, without comments and
--- quotes.
---@param block markdown.Block
function M.commands(block)
  local commands, words, word, line = {}, {}, nil, block.line
  local started = line + 1
  local function end_word()
    if word then words[#words + 1] = word end
    word = nil
  end
  local function end_command()
    end_word()
    if #words > 0 then commands[#commands + 1] = {line = started, words = words} end
    words = {}
  end
  local text = table.concat(block.lines, "\n") .. "\n"
  local at = 1
  line = line + 1
  while at <= #text do
    local c = text:sub(at, at)
    local next_one = text:sub(at + 1, at + 1)
    if c == "\\" and next_one == "\n" then
      at, line = at + 1, line + 1
    elseif c == "'" or c == '"' then
      local stop = text:find(c, at + 1, true) or #text
      local part = text:sub(at + 1, stop - 1)
      word, at = (word or "") .. part, stop
      for _ in part:gmatch "\n" do line = line + 1 end
    elseif c == "#" and not word then
      at = text:find("\n", at, true) - 1
    elseif c:find "[;|&\n]" then
      end_command()
      if c == "\n" then line = line + 1 end
      started = line
    elseif c:find "%s" then
      end_word()
    else
      if #words == 0 and not word then started = line end
      word = (word or "") .. c
    end
    at = at + 1
  end
  end_command()
  return commands
end

return M
