--- Compares results with the claims of the ATOMO paper [Wang et al., NeurIPS 2018, section 5]: spectral ATOMO is up to
-- twice as fast as QSGD and three times as fast as TernGrad, with a negligible loss of accuracy.
local curve = require "atomo.tools.experiment.curve"
local median = require "atomo.core.median"

local M = {}

--- Returns the rows of a family: those whose compressor has this name before the colon.
local function family(rows, name)
  local list = {}
  for _, r in ipairs(rows) do
    if r.compress:match "^[^:]+" == name and #r.curves > 0 then list[#list + 1] = r end
  end
  return list
end

--- Returns the median over seeds of the seconds to an accuracy (infinite if half of the seeds or more do not reach it),
--- and the number of seeds that reach it.
---@param row {curves: atomo.Curve[]}  a curve per seed
---@param what string?  "seconds" (default) or "bytes"
function M.time_to(row, accuracy, what)
  local list, reached = {}, 0
  for i, c in ipairs(row.curves) do
    local p = curve.reach(c, accuracy)
    list[i] = p and p[what or "seconds"] or math.huge
    if p then reached = reached + 1 end
  end
  return median(list) or math.huge, reached
end

--- Returns the row that reaches an accuracy first, and its seconds; nil if none reaches it.
local function fastest(rows, accuracy)
  local best, at = nil, math.huge
  for _, r in ipairs(rows) do
    local t = M.time_to(r, accuracy)
    if t < at then best, at = r, t end
  end
  return best, at
end

--- Judges one claim about speed. The verdict compares the best settings of both compressors. The paper's "up to" does
--- not say which settings it compares, so the text also names the most favourable pair.
local function speed_claim(rows, rival, factor, reach)
  local text = ("spectral ATOMO up to %gx faster than %s"):format(factor, rival.title)
  local ours, theirs = family(rows, "svd"), family(rows, rival.name)
  if #ours == 0 or #theirs == 0 then
    return {claim = text, verdict = "not tested",
      why = ("there is no run of %s"):format(#ours == 0 and "svd" or rival.name)}
  end
  local best, most, compared = nil, nil, false
  for _, accuracy in ipairs(reach) do
    local a, ta = fastest(ours, accuracy)
    local b, tb = fastest(theirs, accuracy)
    if a and b then
      compared = true
      local ratio = tb / ta
      if not best or ratio > best.ratio then best = {ratio = ratio, accuracy = accuracy, ours = a, theirs = b} end
      for _, x in ipairs(ours) do
        for _, y in ipairs(theirs) do
          local tx, ty = M.time_to(x, accuracy), M.time_to(y, accuracy)
          if tx < math.huge and ty < math.huge and (not most or ty / tx > most.ratio) then
            most = {ratio = ty / tx, accuracy = accuracy, ours = x, theirs = y}
          end
        end
      end
    end
  end
  if not compared then
    return {claim = text, verdict = "not tested",
      why = "no accuracy of --reach was reached by both"}
  end
  local function say(p)
    return ("%.2fx to %g %% (%s against %s)"):format(p.ratio, 100 * p.accuracy, p.ours.compress, p.theirs.compress)
  end
  local enough = factor * (1 - 1e-9) -- tolerance for rounding in sums of times
  local why = "best against best: " .. say(best)
  if most.ratio > best.ratio * 1.0001 then why = why .. "; the most favourable pair: " .. say(most) end
  local verdict = best.ratio >= enough and "holds" or most.ratio >= enough and "holds for chosen pairs only" or
    "does not hold"
  return {claim = text, verdict = verdict, why = why, ratio = best.ratio, most = most.ratio}
end

local function finals(row)
  local list = {}
  for _, c in ipairs(row.curves) do list[#list + 1] = c.final end
  return list
end

local function loss_claim(rows, negligible)
  local text = ("a negligible loss of accuracy against dense (taken as %g points or less)"):format(100 * negligible)
  local dense, ours = family(rows, "none")[1], family(rows, "svd")
  if not dense or #ours == 0 or #finals(dense) == 0 then
    return {claim = text, verdict = "not tested",
      why = ("there is no run of %s"):format(dense and "svd" or "none")}
  end
  local target, within, beyond, seeds = curve.mean(finals(dense)), {}, {}, math.huge
  for _, r in ipairs(ours) do
    local list = finals(r)
    if #list > 0 then
      local lost = target - curve.mean(list)
      local to = lost <= negligible + 1e-12 and within or beyond
      to[#to + 1] = ("%s (%+.2f points)"):format(r.compress, lost == 0 and 0 or -100 * lost)
      seeds = math.min(seeds, #list, #finals(dense))
    end
  end
  local why = ("dense %.2f %%"):format(100 * target)
  if #within > 0 then why = why .. "; within: " .. table.concat(within, ", ") end
  if #beyond > 0 then why = why .. "; not: " .. table.concat(beyond, ", ") end
  if seeds == 1 then why = why .. "; of one seed" end
  return {claim = text, verdict = #beyond == 0 and "holds" or #within > 0 and "holds for some budgets only"
    or "does not hold", why = why}
end

--- Judges all claims; returns a list of {claim=, verdict=, why=}.
---@param rows {compress: string, curves: atomo.Curve[]}[]
---@param reach number[]     accuracies to compare at
---@param negligible number  largest loss of accuracy that counts as negligible, a fraction
function M.judge(rows, reach, negligible)
  return {speed_claim(rows, {name = "qsgd", title = "QSGD"}, 2, reach),
    speed_claim(rows, {name = "terngrad", title = "TernGrad"}, 3, reach), loss_claim(rows, negligible)}
end

return M
