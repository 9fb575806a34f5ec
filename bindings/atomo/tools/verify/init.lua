--- atomo.verify: tests whether a compressor is unbiased, has the variance that it states, and decodes safely (stages 4
-- to 8). For built-in and user-defined compressors; scripts/verify.lua prints the report.
local raise = require("atomo.ffi").raise
local T = require "atomo.tensor"
local O = require "atomo.tensor.check_options"
local draws = require "atomo.tools.verify.draws"
local checks = require "atomo.tools.verify.checks"
local changes = require "atomo.tools.verify.changes"
local ranks = require "atomo.tools.verify.ranks"

---@class atomo.VerifyRow
---@field check string
---@field figure number
---@field bound number    the largest value of figure that passes
---@field pass boolean
---@field note string?

---@class atomo.VerifyReport
---@field spec string
---@field pass boolean    have all rows passed?
---@field rows atomo.VerifyRow[]
local Report = {}
Report.__index = Report

--- Returns the parts of the printed table: its first line, the line of a row, its last line.
function Report:title()
  return ("verify %s on [%s], %d draws, seed %d"):format(self.spec, table.concat(self.shape, ","), self.draws,
    self.seed)
end

function Report.line(_, r)
  return ("  %-4s %-42s %10.4g <= %-10.4g %s"):format(r.pass and "pass" or "FAIL", r.check, r.figure, r.bound,
    r.note or "")
end

function Report:verdict()
  return self.pass and "  all passed" or ("  FAILED: " .. table.concat(self:failures(), "; "))
end

function Report:__tostring()
  local lines = {self:title()}
  for _, r in ipairs(self.rows) do lines[#lines + 1] = self:line(r) end
  lines[#lines + 1] = self:verdict()
  return table.concat(lines, "\n")
end

--- Names of the checks that failed.
function Report:failures()
  local list = {}
  for _, r in ipairs(self.rows) do if not r.pass then list[#list + 1] = r.check end end
  return list
end

--- Returns a separate random generator, independent of the compressor's and the script's random streams.
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function()
    state = (state * 16807) % 2147483647
    return state / 2147483647
  end
end

--- Makes a typical gradient: entries of very different sizes, and one strong direction.
local function gradient(shape, random)
  local g = T.empty(shape)
  local p, n, across = g:data(), g:numel(), shape[#shape]
  for i = 0, n - 1 do
    local normal = random() + random() + random() + random() - 2
    p[i] = normal * math.exp(-5 * random()) + 0.2 * math.cos(i % across) * math.sin(1 + math.floor(i / across))
  end
  return g
end

--- Returns a compressor's options, changed: "full" (the budget is sufficient for all atoms), "exact" (also without
--- rounding), "feedback" (with ef=true); nil if the compressor does not have such options.
local function variant(spec, kind)
  local module = require "atomo.compress"
  local entry, values, fold = module.spec.read(spec)
  if kind == "as is" then return spec end
  local changed = {name = entry.name}
  for j, option in ipairs(entry.options) do
    local v = values[j]
    if v == v then
      if option.kind == "enum" then v = option.choices[v + 1] elseif option.kind == "bool" then v = v ~= 0 end
      changed[option.key] = v
    end
  end
  if fold then changed.fold = fold end
  if kind == "feedback" then
    changed.ef = true
    return entry.options.ef and changed or nil
  end
  if not (entry.options.atoms and entry.options.ratio) then return nil end
  changed.ratio, changed.atoms, changed.bytes = nil, nil, entry.options.bytes.max
  if kind == "exact" then
    if entry.options.bits then changed.bits = 32 end
    if entry.options.step then changed.step = 0 end
  end
  return changed
end

--- Returns the subject of the checks: gradients and a function make(variant, way) that makes compressors. spec: as of
--- verify.
local function subject_of(spec, opts)
  local compressor = require("atomo.compress").compressor
  local shape, seed = opts.shape or {24, 3, 3, 8}, opts.seed or 1
  local random = generator(seed)
  local self = {shape = shape, seed = seed, draws = opts.draws or 1000}
  function self.make(kind, way)
    if type(spec) == "function" then return spec(kind, seed, way or "up") end
    local text = variant(spec, kind)
    return text and compressor(text, {seed = seed, way = way})
  end
  function self.random() return generator(seed + 17) end
  self.g, self.small = gradient(shape, random), gradient({5, 1, 1, 4}, random)
  self.c = self.make "as is"
  return self
end

local options = {shape = "table", draws = "number", seed = "number", on_row = "function"}
local function check_options(opts)
  for key, value in pairs(opts) do
    if not options[key] then
      O.unknown("verify", key, {"shape", "draws", "seed", "on_row"})
    elseif type(value) ~= options[key] then
      raise(("verify: %s is a %s, expected a %s"):format(key, type(value), options[key]))
    end
  end
  if opts.draws and opts.draws < 100 then raise(("verify: draws is %g, expected 100 or more"):format(opts.draws)) end
end

--- Adds the rows about random draws: mean, mean of every entry if only rounding is random, variance.
local function statistics(subject, add)
  local c, g = subject.c, subject.g
  local drawn = draws.draw(draws.sampler(c, g), g, subject.draws, nil, function() return c:stats().variance end)
  local u = draws.unbiased(drawn)
  u.check, u.note = "unbiased", ("|mean - g| in standard errors, worst of %d directions; false alarm 1e-6"):format(
    #drawn.along)
  add(u)
  local twice = draws.unbiased(draws.draw(draws.whole_way(subject.make), g, math.ceil(subject.draws / 2)))
  twice.check, twice.note = "unbiased when the average is encoded again", "standard errors; as above"
  add(twice)
  local full = subject.make "full"
  if full then
    local r = draws.each_entry(draws.sampler(full, g), g, math.ceil(subject.draws / 2))
    r.check, r.note = "rounding unbiased, entry by entry", ("worst of %d, full budget; false alarm 1e-6")
      :format(g:numel())
    add(r)
  end
  local v = draws.variance(drawn, drawn.stated)
  v.check, v.note = "variance is the closed form", ("standard errors; measured %.4g, stated %.4g x ||g||^2")
    :format(v.measured / drawn.energy, v.closed_form / drawn.energy)
  add(v)
end

--- Checks a compressor; returns a report, which tostring prints as a table of (check, figure, bound, pass). A
--- statistical row fails for a correct compressor with probability 1e-6, other rows never. Under mpirun every rank must
--- call it: messages are compared over the ranks. spec: as for atomo.compressor; or a function (variant, seed, way)
--- that returns an object with a compressor's methods. way: "up", or "down" for averages that are encoded again.
--- variant: "as is", "full" (budget sufficient for all atoms), "exact" (also without rounding) or "feedback" (with ef);
--- return nil for a variant that does not exist. on_row(report, row) is called after each check, and once before the
--- first, without a row.
---@param spec string|table|fun(variant: string, seed: integer, way: string): atomo.Compressor?
---@param opts {shape: integer[]?, draws: integer?, seed: integer?, on_row: function?}?
---@return atomo.VerifyReport
---@usage atomo.verify("entry:ratio=4", {shape = {16}, draws = 200}).pass --> true
local function verify(spec, opts)
  opts = opts or {}
  check_options(opts)
  local subject = subject_of(spec, opts)
  local report = setmetatable({spec = tostring(subject.c), shape = subject.shape, draws = subject.draws,
    seed = subject.seed, rows = {}, pass = true}, Report)
  local function add(row)
    if not row then return end
    report.rows[#report.rows + 1] = row
    report.pass = report.pass and row.pass
    if opts.on_row then opts.on_row(report, row) end
  end
  if opts.on_row then opts.on_row(report) end
  add(checks.full_budget(subject))
  add(checks.parseval(subject))
  if subject.c.unbiased then statistics(subject, add) else add(checks.stated_error(subject)) end
  for _, name in ipairs {"feedback", "rate", "same_key", "planned_size", "linear", "refusals", "inputs", "nonfinite"} do
    add(checks[name](subject))
  end
  changes.after_change(subject, add)
  changes.bounded(subject, add)
  ranks.alike(subject, add)
  return report
end

return {verify = verify, draw = draws.draw, unbiased = draws.unbiased, variance = draws.variance,
  each_entry = draws.each_entry, sampler = draws.sampler, whole_way = draws.whole_way}
