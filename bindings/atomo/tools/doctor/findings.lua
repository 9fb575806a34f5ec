--- Collects and prints the findings of `atomo-lua doctor`: one line each, and below it the remedy.
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

--- Adds a finding that needs no action.
function Findings:ok(name, text) line(self, "ok", name, text) end

--- Adds a check that could not be made; text: the reason.
function Findings:skip(name, text) line(self, "skip", name, text) end

--- Adds a finding that works, but may be slow or cause trouble; remedy (optional): how to change it.
function Findings:note(name, text, remedy)
  self.notes = self.notes + 1
  line(self, "note", name, text, remedy)
end

--- Adds a finding that must be fixed; remedy: how to fix it.
function Findings:fix(name, text, remedy)
  self.fixes = self.fixes + 1
  line(self, "fix", name, text, remedy)
end

return Findings
