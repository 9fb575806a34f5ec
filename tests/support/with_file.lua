--- with_file(bytes, fn), with_file(bytes, ending, fn): calls fn(path) for a temporary file with these bytes, whose name
--- ends in `ending`; removes the file afterwards, also if fn raises.
---@param bytes string
---@param ending string|fun(path: string)
---@param fn fun(path: string)?
return function(bytes, ending, fn)
  if not fn then ending, fn = "", ending end
  local reserved = os.tmpname()
  local path = reserved .. ending
  local file = assert(io.open(path, "wb"))
  file:write(bytes)
  file:close()
  local ok, problem = pcall(fn, path)
  os.remove(reserved)
  os.remove(path)
  if not ok then error(problem, 0) end
end
