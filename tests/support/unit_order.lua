--- Orders the test units for a mutant: those that run its line, by expected seconds per kill.
local shell = require "support.shell"
local test_units = require "support.test_units"
local line_coverage = require "support.line_coverage"

local UNKNOWN = {program = 1, spec = 20, mpi = 15} -- assumed seconds of a unit without coverage
local PATIENT = 200 -- assumed largest seconds of a unit without a fault
local BATCH = 10 -- seconds of units that one process runs
local NEAR, FURTHER, FAR = 0.4, 0.8, 0.02 -- fraction of mutants killed by the likeliest unit, the next ones, other ones

local Order = {}
Order.__index = Order

--- Makes the order of the units in ROOT. DIR has coverage and verdicts; try(units, seconds) runs units without a fault.
local function new(root, dir, try)
  local units = test_units.list(root)
  return setmetatable({root = root, dir = dir, try = try, units = units, covered = {}, sound = {}}, Order)
end

--- Reads coverage and verdicts that were added since the last call.
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

--- Is a unit's failure (at its time limit if `slow`) caused by the mutant: does it pass without one? The copy must have
-- no mutant now. A unit that fails is left out from then on.
function Order:is_sound(unit, slow)
  local covered = self.covered[unit]
  if not slow and (covered and covered.passed or self.sound[unit]) then return true end
  local seconds = covered and covered.seconds or UNKNOWN[unit.kind]
  self.sound[unit] = self.try({unit}, slow and seconds or PATIENT)
  if not self.sound[unit] then print("fails without a fault: " .. unit.name) end
  return self.sound[unit]
end

--- Returns the units for a mutant within a budget in seconds, in batches for one process each: {{units=, seconds=},
-- ...}; the number of units in them; and the number of units that run, or may run, the mutant's line.
function Order:batches(m, budget)
  local text = shell.read(self.root .. "/" .. m.file)
  local line, list = line_coverage.line_of(m.file, text, m.line, self.code), {}
  for _, unit in ipairs(self.units) do
    local covered = self.covered[unit]
    local blind = test_units.blind[unit.name]
    if not covered or covered.lines[line] or blind and m.file:find(blind) then
      local kills = self.kills
      local base = unit.name:match "^[%w_]+"
      local place = test_units.near(m.file, unit)
      local share = (place and NEAR * FURTHER ^ place or FAR) + 0.02 * math.min(10, kills[base] or 0) +
        0.5 * (kills[base .. " " .. m.file] or 0)
      local seconds = covered and covered.seconds or UNKNOWN[unit.kind] * (place and 1 or 10)
      list[#list + 1] = {unit = unit, seconds = seconds, cost = (seconds + 0.5) / share * (covered and 1 or 2)}
    end
  end
  table.sort(list, function(a, b)
    if a.cost ~= b.cost then return a.cost < b.cost end
    return a.unit.name < b.unit.name
  end)
  local batches, count, spent = {}, 0, 0
  for _, item in ipairs(list) do
    local fits = count == 0 or spent + item.seconds <= budget -- if not, a cheaper one may follow
    if fits and self.sound[item.unit] ~= false then
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
