--- The hint of error texts for whoever gave a path on a command line, which takes no options of atomo.data.open.

--- Returns "with --data: a Lua file that says return require("atomo").data.open(PATH, {size = 32})".
---@param option string
---@return string
return function(option)
  return ('with --data: a Lua file that says return require("atomo").data.open(PATH, {%s})'):format(option)
end
