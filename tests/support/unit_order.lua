--- Which test units meet a mutant, and in which order: those that run its line, by seconds for each expected kill.
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local shell = dofile(here .. "/shell.lua")
local test_units = dofile(here .. "/test_units.lua")
local line_coverage = dofile(here .. "/line_coverage.lua")

local UNKNOWN = 20 -- seconds that a unit without coverage is taken to need
local BATCH = 10 -- seconds of units that one process runs
local PRIOR = {near = 0.3, far = 0.05} -- of mutants a unit kills, before anything is known

local Order = {}
Order.__index = Order

--- Makes the order of the units in ROOT. DIR holds coverage and verdicts; try(units, seconds) runs units without a
-- fault.
local function new(root, dir, try)
  return setmetatable({root = root, dir = dir, try = try, units = test_units.list(root), covered = {}, sound = {}}, Order)
end

--- Reads the coverage and the verdicts that came since.
function Order:refresh()
  for _, unit in ipairs(self.units) do
    if not self.covered[unit] then
      self.covered[unit] = line_coverage.load(("%s/coverage/%s"):format(self.dir, unit.name:gsub(" ", "_")))
    end
  end
  if not self.code then
    local text = shell.read(self.dir .. "/code")
    self.code = text and {}
    for line in (text or ""):gmatch "[^\n]+" do self.code[line] = true end
  end
  self.kills = {} -- "place file" and "file" -> mutants killed
  for _, line in ipairs(shell.lines_of(("head -qn 1 %s/verdicts/0* 2> /dev/null"):format(shell.quote(self.dir)))) do
    local file, by = line:match "^killed\t([^:]*):%d+\t%a+\t[^\t]*\t(.*)$"
    if file then
      by = by:match "([%w_]*)%.lua:%d+$" or by
      for _, key in ipairs {by, by .. " " .. file} do self.kills[key] = (self.kills[key] or 0) + 1 end
    end
  end
end

--- Whether a unit passes without a fault, found out once; one that does not is left out.
function Order:is_sound(unit)
  local covered = self.covered[unit]
  if covered and covered.passed then return true end
  if self.sound[unit] == nil then
    self.sound[unit] = self.try({unit}, covered and covered.seconds or 3 * UNKNOWN)
    if not self.sound[unit] then print("fails without a fault: " .. unit.name) end
  end
  return self.sound[unit]
end

--- The units for a mutant within a budget in seconds, in batches for one process each: {{units=, seconds=}, ...}, the
-- number of units in them, and the number of units that run the mutant's line or may run it.
function Order:batches(m, budget)
  local text = shell.read(self.root .. "/" .. m.file)
  local line, list = line_coverage.line_of(m.file, text, m.line, self.code), {}
  for _, unit in ipairs(self.units) do
    local covered = self.covered[unit]
    local blind = test_units.blind[unit.name]
    if not covered or covered.lines[line] or blind and m.file:find(blind) then
      local kills = self.kills
      local base = unit.name:match "^[%w_]+"
      local near = test_units.near(m.file, unit) and "near" or "far"
      local share = PRIOR[near] + 0.02 * math.min(10, kills[base] or 0) + 0.5 * (kills[base .. " " .. m.file] or 0)
      local seconds = covered and covered.seconds or UNKNOWN
      list[#list + 1] = {unit = unit, seconds = seconds, cost = (seconds + 0.5) / share * (covered and 1 or 5)}
    end
  end
  table.sort(list, function(a, b)
    if a.cost ~= b.cost then return a.cost < b.cost end
    return a.unit.name < b.unit.name
  end)
  local batches, count, spent = {}, 0, 0
  for _, item in ipairs(list) do
    if count > 0 and spent + item.seconds > budget then break end
    if self:is_sound(item.unit) then
      local last = batches[#batches]
      local first = last and last.units[1]
      if first and first.kind ~= "program" and first.kind == item.unit.kind and first.ranks == item.unit.ranks and
        last.seconds + item.seconds <= BATCH then
        table.insert(last.units, item.unit)
        last.seconds = last.seconds + item.seconds
      else
        batches[#batches + 1] = {units = {item.unit}, seconds = item.seconds}
      end
      count, spent = count + 1, spent + item.seconds
    end
  end
  return batches, count, #list
end

return {new = new}
