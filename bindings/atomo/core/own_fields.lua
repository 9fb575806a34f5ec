--- Returns name -> value of a table's own fields, with those that it loads on first use (`__lazy` of its metatable).
---@param holder table
---@return table<any, any>
return function(holder)
  local all = {}
  for name, value in next, holder do all[name] = value end
  for _, names in ipairs(rawget(debug.getmetatable(holder) or {}, "__lazy") or {}) do
    for name in pairs(names) do all[name] = holder[name] end
  end
  return all
end
