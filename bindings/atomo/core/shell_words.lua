--- Texts as words of a shell command.
local M = {}

--- Returns text in single quotes.
---@param text string
---@return string
function M.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Returns text as one word, quoted only if necessary.
function M.word(text)
  text = tostring(text)
  return text:find "^[%w%._/:=,%%%+@%-]+$" and text or M.quote(text)
end

return M
