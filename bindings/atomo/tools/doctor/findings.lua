--- Collects and shows the findings of `atomo-lua doctor`: one line each, and below it what to do.
local Findings = {}
Findings.__index = Findings

local WIDTH = 21 -- columns of a finding's name

---@class atomo.doctor.Findings
---@field fixes integer  findings that need fixing
---@field notes integer  findings that may need attention

--- Returns an empty collection.
---@param say fun(line: string)  gets each line at once, because a later check can take seconds
---@return atomo.doctor.Findings
function Findings.new(say) return setmetatable({say = say, fixes = 0, notes = 0}, Findings) end

local function line(self, level, name, text, remedy)
  self.say(("%-5s %-" .. WIDTH .. "s %s"):format(level, name, text))
  if remedy then self.say((" "):rep(6) .. "-> " .. remedy) end
end

--- Nothing to do.
function Findings:ok(name, text) line(self, "ok", name, text) end

--- A check that was not made; text: why.
function Findings:skip(name, text) line(self, "skip", name, text) end

--- Works, but may be slow or surprise; remedy (optional): what changes it.
function Findings:note(name, text, remedy)
  self.notes = self.notes + 1
  line(self, "note", name, text, remedy)
end

--- Needs fixing; remedy: what to do.
function Findings:fix(name, text, remedy)
  self.fixes = self.fixes + 1
  line(self, "fix", name, text, remedy)
end

return Findings
