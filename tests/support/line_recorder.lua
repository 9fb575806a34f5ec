--- Records which functions of instrumented Lua files run: RECORDER(OUT) makes debug.runs(NAME), which appends a name to
-- OUT, once per process. It is a field of `debug` because busted removes new globals.
return function(out)
  if debug.runs then return end -- luacheck: ignore 143
  local file, seen = assert(io.open(out, "a")), {}
  file:setvbuf "no"
  function debug.runs(name) -- luacheck: ignore 142
    if not seen[name] then
      seen[name] = true
      file:write(name, "\n")
    end
  end
end
