--- Returns the names of a list {{name, ...}, ...}, from named_modules, named_parameters or named_buffers, as one text
--- separated by spaces.
return function(list)
  local names = {}
  for i, entry in ipairs(list) do names[i] = entry[1] end
  return table.concat(names, " ")
end
