--- The progress line (stage 10). On a terminal one line is redrawn, at most 4 times a second. Elsewhere a plain line is
--- printed every N steps or every 10 seconds.
local f = require "atomo.ffi"
local files = require "atomo.core.files"

---@class atomo.Progress
local Progress = {}
Progress.__index = Progress

return function(log)
  local function put(self, text) self.stream:write(text) end

  local function clear(self)
    if self.drawn > 0 then
      put(self, "\r" .. (" "):rep(self.drawn) .. "\r")
      self.drawn = 0
    end
  end

  --- Returns the part before the caller's text: "epoch 3/15  120/391  ETA 2m04s".
  local function head(self, i, now)
    local parts = {self.label}
    parts[#parts + 1] = self.total and ("%d/%d"):format(i, self.total) or tostring(i)
    if self.total and i < self.total and i > self.first then
      parts[#parts + 1] = "ETA " .. log.duration((now - self.started) / (i - self.first) * (self.total - i))
    elseif self.total and i >= self.total then
      parts[#parts + 1] = log.duration(now - self.started)
    end
    return table.concat(parts, "  ")
  end

  local function due(self, i, now)
    if self.total and i >= self.total then return true end
    if self.redraw then return now - self.shown_at >= 0.25 end
    return i % self.every == 0 or now - self.shown_at >= self.seconds
  end

  --- Returns parts, separated by two spaces, as many from the first on as fit in `room` columns.
  local function fitting(parts, room)
    local line = ""
    for k, part in ipairs(parts) do
      if k > 1 and #line + 2 + #part > room then break end
      line = k == 1 and part or line .. "  " .. part
    end
    return line
  end

  --- Reports that step i is done. text follows the counter; if it is a function, it is called only when a line is
  --- shown, with true if it is redrawn on a terminal. A list of texts is shown as far as it fits there.
  ---@param i integer
  ---@param text string|string[]|fun(live: boolean):(string|string[])|nil
  function Progress:update(i, text)
    local now = self.clock()
    if not due(self, i, now) then return end
    self.shown_at = now
    if type(text) == "function" then text = text(self.redraw ~= nil) end
    local line = head(self, i, now)
    if type(text) == "table" then text = fitting(text, self.redraw and self.redraw - 3 - #line or math.huge) end
    if text then line = line .. "  " .. text end
    if not self.redraw then return put(self, line .. "\n") end
    line = line:sub(1, self.redraw - 1)
    put(self, "\r" .. line .. (" "):rep(self.drawn - #line))
    self.drawn = #line
  end

  --- Prints a whole line above the progress line.
  function Progress:line(text)
    clear(self)
    put(self, text .. "\n")
  end

  --- Ends the progress line; text, if given, takes its place.
  function Progress:finish(text)
    if text then return self:line(text) end
    if self.drawn > 0 then put(self, "\n") end
    self.drawn = 0
  end

  --- Makes a progress line: log.progress{total=, label="epoch 1/15", every=50, seconds=10, first=0}. total: steps in
  --- all (nil: unknown, no ETA); first: steps done before the start (of a resumed epoch); every, seconds: without a
  --- terminal.
  ---@param o table
  ---@return atomo.Progress
  ---@usage type(atomo.log.progress {total = 3}) --> table
  return function(o)
    local width, clock = o.width or log.width(), o.clock or f.C.atomo_time
    return setmetatable({
      total = o.total, label = o.label, every = o.every or 50, seconds = o.seconds or 10, first = o.first or 0,
      stream = o.stream or files.stdout, clock = clock, started = clock(), shown_at = clock(), drawn = 0,
      redraw = width > 8 and width or nil,
    }, Progress)
  end
end
