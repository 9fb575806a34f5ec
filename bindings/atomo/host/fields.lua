--- The named fields of a value at the prompt, for help and completion.

--- Returns name -> value of a table's fields, of those that it loads on first use, and of its class.
---@param x any
---@return table<string, any>
return function(x)
  local all = {}
  local function add(t)
    for name, value in next, t do
      if type(name) == "string" and not name:match "^_" and all[name] == nil then all[name] = value end
    end
  end
  if type(x) == "table" then add(x) end
  local meta = debug.getmetatable(x)
  if type(meta) ~= "table" then return all end
  for _, names in ipairs(rawget(meta, "__lazy") or {}) do
    for name in pairs(names) do all[name] = x[name] end
  end
  local class = rawget(meta, "__index")
  if type(class) == "table" then add(class) else add(meta) end
  return all
end
