--- Results of an experiment as tables, JSON and charts, with one row per compressor.
local log = require "atomo.core.log"
local curve = require "atomo.tools.experiment.curve"
local claims = require "atomo.tools.experiment.claims"

local M = {}

local function percent(v) return ("%.2f %%"):format(100 * v) end

--- Returns mean and standard error of the final accuracies over seeds, as text.
local function final_text(row)
  local list = {}
  for _, c in ipairs(row.curves) do list[#list + 1] = c.final end
  if #list == 0 then return "-" end
  local error = curve.standard_error(list)
  return percent(curve.mean(list)) .. (error and (" ±%.2f"):format(100 * error) or "")
end

local function mean_of(row, key)
  local list = {}
  for _, c in ipairs(row.curves) do list[#list + 1] = c[key] end
  return curve.mean(list)
end

--- "3m02s", "3m02s (2 of 3)", "-"
local function reach_text(row, accuracy)
  local t, reached = claims.time_to(row, accuracy)
  if t == math.huge then return reached > 0 and ("- (%d of %d)"):format(reached, #row.curves) or "-" end
  return log.duration(t) .. (reached < #row.curves and (" (%d of %d)"):format(reached, #row.curves) or "")
end

--- Returns the main table, a row per compressor, and a note for every failed run.
---@param rows table[]
---@param reach number[]
---@return string
function M.table(rows, reach)
  local header = {"compressor", "lr", "seeds", "final test", "ms/step", "sent/step", "less"}
  for _, a in ipairs(reach) do
    header[#header + 1] = ("to %g %%"):format(100 * a)
    header[#header + 1] = "sent by then"
  end
  local lines, notes = {header}, {}
  for _, r in ipairs(rows) do
    local line = {r.item, r.lr and ("%g"):format(r.lr) or "-", ("%d/%d"):format(#r.curves, r.wanted)}
    if #r.curves > 0 then
      line[4] = final_text(r)
      line[5] = ("%.1f"):format(mean_of(r, "step_ms"))
      local bytes = mean_of(r, "bytes_step")
      line[6] = log.bytes(bytes)
      line[7] = bytes > 0 and log.ratio(mean_of(r, "dense_step") / bytes) or "-"
      for _, a in ipairs(reach) do
        local sent = claims.time_to(r, a, "bytes")
        line[#line + 1] = reach_text(r, a)
        line[#line + 1] = sent < math.huge and log.bytes(sent) or "-"
      end
    else
      line[4] = #r.failures > 0 and "failed" or "not run"
      for k = 5, #header do line[k] = "-" end
    end
    lines[#lines + 1] = line
    for _, why in ipairs(r.failures) do notes[#notes + 1] = ("failed: %s: %s"):format(why.name, why.why) end
  end
  return table.concat({log.table(lines), unpack(notes)}, "\n")
end

--- Returns the table of speed-ups at one accuracy: seconds of some compressors (columns) / seconds of each (rows).
---@param rows table[]
---@param accuracy number
---@param against string[]  names before the colon of the compressors in the columns
---@return string?  nil if nothing can be compared
function M.speedups(rows, accuracy, against)
  local columns = {}
  for _, family in ipairs(against) do
    for _, r in ipairs(rows) do
      if r.compress:match "^[^:]+" == family and claims.time_to(r, accuracy) < math.huge then
        columns[#columns + 1] = r
      end
    end
  end
  if #columns == 0 then return nil end
  local lines = {{("to %g %%, against"):format(100 * accuracy)}}
  for k, c in ipairs(columns) do lines[1][k + 1] = c.item end
  for _, r in ipairs(rows) do
    local t = claims.time_to(r, accuracy)
    if t < math.huge then
      local line = {r.item}
      for k, c in ipairs(columns) do line[k + 1] = ("%.2fx"):format(claims.time_to(c, accuracy) / t) end
      lines[#lines + 1] = line
    end
  end
  return log.table(lines)
end

--- Returns the table of final accuracies in the search for learning rates: a row per compressor, a column per rate.
---@param rows {item: string, search: table<number, number>?, lr: number?}[]
---@param rates number[]
---@return string?  nil if there was no search
function M.search(rows, rates)
  if #rates < 2 then return nil end
  local lines = {{"final test accuracy, lr"}}
  for k, lr in ipairs(rates) do lines[1][k + 1] = ("%g"):format(lr) end
  for _, r in ipairs(rows) do
    local line = {r.item}
    for k, lr in ipairs(rates) do
      local v = r.search and r.search[lr]
      line[k + 1] = v and percent(v) .. (lr == r.lr and " *" or "") or "-"
    end
    lines[#lines + 1] = line
  end
  return log.table(lines)
end

---@param judged {claim: string, verdict: string, why: string}[]
function M.claims_text(judged)
  local lines = {"What these results say of the paper's claims:"}
  for _, c in ipairs(judged) do
    lines[#lines + 1] = ("  %s: %s (%s)"):format(c.claim, c.verdict:upper(), c.why)
  end
  return table.concat(lines, "\n")
end

--- Returns two charts: {accuracy_time = chart, accuracy_bytes = chart}.
---@param rows table[]
---@param title string
function M.charts(rows, title)
  local series = {seconds = {}, bytes = {}}
  for _, r in ipairs(rows) do
    if #r.curves > 0 then
      for key, list in pairs(series) do
        local points = {}
        for k, p in ipairs(curve.average(r.curves)) do points[k] = {p[key], 100 * p.accuracy} end
        list[#list + 1] = {name = r.item, points = points}
      end
    end
  end
  local y = {label = "test accuracy, %"}
  return {
    accuracy_time = {title = title, x = {label = "training time, s", log = true}, y = y, series = series.seconds},
    accuracy_bytes = {title = title, x = {label = "bytes sent by rank 0", log = true}, y = y, series = series.bytes},
  }
end

--- Returns a row for JSON, with plain numbers.
---@param row table
---@param reach number[]
function M.plain(row, reach)
  local out = {compress = row.compress, topology = row.topology, lr = row.lr, seeds_done = #row.curves,
    seeds_wanted = row.wanted, failures = log.array(row.failures), runs = log.array {}, reach = log.array {}}
  for k, c in ipairs(row.curves) do
    out.runs[k] = {seed = c.seed, log = c.log, final = c.final, steps = c.steps, step_ms = c.step_ms,
      bytes_step = c.bytes_step, dense_step = c.dense_step, hidden = c.hidden, points = log.array(c.points)}
  end
  for k, a in ipairs(reach) do
    local t, reached = claims.time_to(row, a)
    out.reach[k] = {accuracy = a, seconds = t, bytes = claims.time_to(row, a, "bytes"), seeds = reached}
  end
  return out
end

return M
