--- Escapes text for roff: backslashes, hyphens of options, and dots and quotes that begin a line.
---@param text string
---@return string
return function(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("%^", "\\(ha"):gsub("~", "\\(ti"):gsub("`", "\\(ga")
  text = text:gsub("'", "\\(aq")
  return (text:gsub("^%.", "\\&."):gsub("\n%.", "\n\\&."))
end
