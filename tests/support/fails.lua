--- Asserts that fn(...) raises an error that contains every text (a string or a list, not patterns).
---@param texts string|string[]
---@param fn function
return function(texts, fn, ...)
  local ok, message = pcall(fn, ...)
  assert(not ok, "no error was raised")
  for _, text in ipairs(type(texts) == "table" and texts or {texts}) do
    assert(tostring(message):find(text, 1, true), ("'%s' is not in: %s"):format(text, tostring(message)))
  end
end
