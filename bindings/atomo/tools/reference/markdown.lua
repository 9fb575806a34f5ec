--- Text of comments as Markdown.
local M = {}

--- Escapes what Markdown would read as markup, outside of code.
function M.plain(text) return (text:gsub("[<>*|\\]", "\\%0"):gsub("_", "\\_")) end

--- Returns a comment's text as paragraphs: indented lines become a block of code.
---@param text string[]
---@return string
function M.paragraphs(text)
  local lines, in_code = {}, false
  for i, line in ipairs(text) do
    local indented = line:find "^%s%s+%S" ~= nil
    local goes_on = in_code and line == "" and (text[i + 1] or ""):find "^%s%s+%S" ~= nil
    local is_code = indented or goes_on
    if is_code ~= in_code then lines[#lines + 1] = is_code and "\n```text" or "```\n" end
    in_code = is_code
    lines[#lines + 1] = is_code and line or M.plain(line)
  end
  if in_code then lines[#lines + 1] = "```" end
  return table.concat(lines, "\n")
end

return M
