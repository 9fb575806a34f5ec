--- Makes the end of an error about a name that is not offered from its entry in core/instead.lua.

---@param text string  "nn.ReLU()": write that; "near: X": X is not the same; "none": nothing is
---@return string
return function(text)
  if text == "none" then return "nothing here does the same" end
  local near = text:match "^near: (.*)"
  return near and ("nothing here does the same; %s serves a like purpose"):format(near) or "write " .. text
end
