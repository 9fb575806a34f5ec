--- busted's output handler for `atomo-lua test`: one dot per spec, every failure in full, and a last line
-- `N passed, N failed` (`, N skipped`). Under mpirun rank 0 prints for all ranks: a spec passes if it passes on every
-- rank, and each failure names its rank. `--slowest N` also lists the N slowest specs and files, with seconds.
local ffi = require "ffi"
ffi.cdef [[int atomo_handler_mpi_launched(void) __asm__("atomo_mpi_launched");]]
local launched = ffi.C.atomo_handler_mpi_launched() == 1
local world = launched and require("atomo.comm.mpi").world

local marks = {success = ".", pending = "s", failure = "F", error = "E"}
local width = 100

--- Returns the text of one failure: place, name, message, traceback.
local function describe(item)
  local where = item.element.trace or {}
  local message = item.message
  if type(message) ~= "string" then
    message = message == nil and "error() without a message" or require("pl.pretty").write(message)
  end
  local place = where.short_src and ("%s (%s:%s)\n"):format(item.name, where.short_src, where.currentline) or item.name
  local text = place .. message
  local traceback = item.isError and item.trace and item.trace.traceback
  return traceback and text .. traceback or text
end

--- Packs items as "name\0text\1name\0text\1", to be sent to rank 0.
local function pack(items)
  local parts = {}
  for _, item in ipairs(items) do parts[#parts + 1] = item.name .. "\0" .. describe(item) .. "\1" end
  return table.concat(parts)
end

local function print_failures(texts)
  local failed, count = {}, 0
  for r, text in ipairs(texts) do
    for name, body in text:gmatch("(%Z*)%z([^\1]*)\1") do
      io.write(launched and ("\nFAILED on rank %d: "):format(r - 1) or "\nFAILED: ", body, "\n")
      local key = name ~= "" and name or body -- an error outside any spec has no name
      if not failed[key] then count = count + 1 end
      failed[key] = true
    end
  end
  return failed, count
end

--- Prints the `count` slowest of a list of {seconds =, name =}.
local function print_slowest(count, what, list)
  table.sort(list, function(a, b) return a.seconds > b.seconds end)
  count = math.min(count, #list)
  io.write(("the %d slowest of %d %s:\n"):format(count, #list, what))
  for i = 1, count do io.write(("%9.3f s  %s\n"):format(list[i].seconds, list[i].name)) end
end

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local quiet = launched and world.rank > 0
  local column = 0
  local slowest = tonumber(options.arguments and options.arguments[1]) or 0
  local specs, files = {}, {} -- {seconds =, name =} of each; only with `slowest`

  local function mark(status)
    if quiet or options.deferPrint then return end
    io.write(marks[status] or "?")
    column = column + 1
    if column % width == 0 then io.write("\n") end
    io.flush()
  end

  function handler.testEnd(element, _, status)
    mark(status)
    if slowest > 0 then
      local where = element.trace or {}
      specs[#specs + 1] = {seconds = element.duration or 0, name = ("%s:%s  %s"):format(where.short_src or "?",
        where.currentline or "?", handler.getFullName(element))}
    end
    return nil, true
  end

  function handler.fileEnd(element)
    files[#files + 1] = {seconds = element.duration or 0, name = element.name}
    return nil, true
  end

  function handler.fileError()
    mark("error")
    return nil, true
  end

  function handler.suiteEnd()
    if handler.successesCount + handler.pendingsCount + #handler.failures + #handler.errors == 0 then
      busted.publish({"error"}, {}, nil, "no spec ran: nothing matches the arguments", {})
    end
    local items = {}
    for _, list in ipairs {handler.failures, handler.errors} do
      for _, item in ipairs(list) do items[#items + 1] = item end
    end
    local texts = {pack(items)}
    if launched then texts = world:allgatherv(texts[1]) end
    if quiet then return nil, true end
    if column % width ~= 0 then io.write("\n") end
    local failed, count = print_failures(texts)
    local passed = 0
    for _, item in ipairs(handler.successes) do
      if not failed[item.name] then passed = passed + 1 end
    end
    for _, item in ipairs(handler.pendings) do
      if type(item.message) == "string" then io.write("skipped: ", item.name, ": ", item.message, "\n") end
    end
    if slowest > 0 then
      print_slowest(slowest, "specs", specs)
      print_slowest(slowest, "files", files)
    end
    local skipped = handler.pendingsCount > 0 and (", %d skipped"):format(handler.pendingsCount) or ""
    io.write(("%s%d passed, %d failed%s\n"):format(count > 0 and "\n" or "", passed, count, skipped))
    io.flush()
    return nil, true
  end

  busted.subscribe({"test", "end"}, handler.testEnd, {predicate = handler.cancelOnPending})
  busted.subscribe({"file", "end"}, handler.fileEnd)
  busted.subscribe({"suite", "end"}, handler.suiteEnd)
  for _, kind in ipairs {"error", "failure"} do
    for _, element in ipairs {"file", "describe"} do
      busted.subscribe({kind, element}, handler.fileError)
    end
  end
  return handler
end
