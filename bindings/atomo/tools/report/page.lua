--- A report as one self-contained HTML page: charts, tables, and a script that hides runs and sorts rows.
local charts = require "atomo.tools.report.charts"
local colours = require("atomo.tools.plot.line").colours
local escape = require("atomo.tools.plot.svg").escape
local tables = require "atomo.tools.report.tables"

local M = {}

local style = [[
body { font: 15px/1.45 "DejaVu Sans", Helvetica, Arial, sans-serif; color: #1a1a1a; margin: 24px auto;
  max-width: 1340px; padding: 0 20px; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin: 30px 0 10px; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-size: 13px; } th, td { padding: 4px 10px; text-align: left; }
th { border-bottom: 2px solid #888; white-space: nowrap; } td { border-bottom: 1px solid #e4e4e4; }
.number { text-align: right; white-space: nowrap; } table.sorted th { cursor: pointer; }
.charts { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 12px; }
.charts svg { max-width: 100%; height: auto; }
.runs { position: sticky; top: 0; background: #fff; padding: 6px 0; } .wide { overflow-x: auto; }
.runs button { font: inherit; font-size: 13px; border: 1px solid #ccc; border-radius: 4px; background: #fff;
  margin: 2px 6px 2px 0; padding: 3px 10px; cursor: pointer; } .runs button.off { opacity: 0.35; }
.runs i { display: inline-block; width: 22px; height: 4px; vertical-align: middle; margin-right: 7px; }
.note { color: #555; font-size: 13px; } summary { cursor: pointer; }
@media print { .runs { position: static; } h2 { break-after: avoid; } svg { break-inside: avoid; } }
]]

local script = [[
document.querySelectorAll(".runs button").forEach(function (button) {
  button.addEventListener("click", function () {
    var off = button.classList.toggle("off");
    document.querySelectorAll("svg ." + button.dataset.run).forEach(function (g) {
      g.style.display = off ? "none" : "";
    });
  });
});
document.querySelectorAll("table.sorted").forEach(function (table) {
  table.querySelectorAll("th").forEach(function (th, column) {
    th.addEventListener("click", function () {
      var up = th.dataset.up = th.dataset.up === "1" ? "0" : "1";
      var rows = Array.from(table.tBodies[0].rows);
      rows.sort(function (a, b) {
        var s = a.cells[column].textContent, t = b.cells[column].textContent, x = parseFloat(s), y = parseFloat(t);
        var order = isNaN(x) || isNaN(y) ? s.localeCompare(t) : x - y;
        return up === "1" ? order : -order;
      });
      rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
    });
  });
});
document.body.dataset.ready = "yes";
]]

--- Is a cell empty, or a number with or without a unit?
local function is_number(text) return text == "-" or text:find "^[+-]?%d[%d.]*%S?$" or text:find "^[%d.]+ %S+$" end

--- Are all cells of column c, below the header, numbers?
local function has_numbers(rows, c)
  for r = 2, #rows do
    if not is_number(rows[r][c]) then return false end
  end
  return c > 1
end

--- Returns a table; rows[1] is its header. class: of the table.
local function html_table(rows, class)
  local out = {('<div class="wide"><table class="%s"><thead><tr>'):format(class or "")}
  for c, cell in ipairs(rows[1]) do
    out[#out + 1] = ("<th%s>%s</th>"):format(has_numbers(rows, c) and ' class="number"' or "", escape(cell))
  end
  out[#out + 1] = "</tr></thead><tbody>"
  for r = 2, #rows do
    out[#out + 1] = "<tr>"
    for c, cell in ipairs(rows[r]) do
      local number = c > 1 and is_number(cell)
      out[#out + 1] = ('<td%s>%s</td>'):format(number and ' class="number"' or "", escape(cell))
    end
    out[#out + 1] = "</tr>"
  end
  out[#out + 1] = "</tbody></table></div>"
  return table.concat(out)
end

--- Returns the buttons that name the runs and hide them.
local function buttons(list)
  local out = {'<div class="runs">'}
  for k, run in ipairs(list) do
    out[#out + 1] = ('<button data-run="run-%d"><i style="background:%s"></i>%s</button>'):format(k,
      colours[(k - 1) % #colours + 1], escape(run.name))
  end
  out[#out + 1] = "</div>"
  return table.concat(out)
end

local function add_charts(out, title, note, list)
  if #list == 0 then return end
  out[#out + 1] = ('<h2>%s</h2>\n<p class="note">%s</p>\n<div class="charts">'):format(title, note)
  for _, chart in ipairs(list) do out[#out + 1] = chart.svg end
  out[#out + 1] = "</div>"
end

local function add_settings(out, list)
  local differ, shared = tables.settings(list)
  if #list > 1 then
    local header = {"setting"}
    for k, run in ipairs(list) do header[k + 1] = run.name end
    table.insert(differ, 1, header)
    out[#out + 1] = "<h2>Settings that differ</h2>"
    out[#out + 1] = #differ > 1 and html_table(differ) or '<p class="note">None.</p>'
  end
  table.insert(shared, 1, {"setting", "value"})
  out[#out + 1] = ("<h2>Settings%s</h2><details><summary>%d settings</summary>%s</details>"):format(
    #list > 1 and " in common" or "", #shared - 1, html_table(shared))
end

--- Returns the page of a list of runs that series.name_runs has named.
---@param list atomo.Run[]
---@param title string
---@param aim number     test accuracy whose time the table shows; 0: none
---@return string
function M.html(list, title, aim)
  local out = {'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ("<title>%s</title>\n<style>\n%s</style></head>\n<body>"):format(escape(title), style),
    ("<h1>%s</h1>"):format(escape(title)), buttons(list),
    "<h2>Results</h2>", html_table(tables.results(list, aim, "run", function(run) return run.name end), "sorted")}
  add_charts(out, "Accuracy and loss", "Lines with markers: test set. Thin lines: training, means over steps. " ..
    "A dashed line lies on another one.", charts.curves(list, 430, false))
  add_charts(out, "Time", "Means over all steps but the first two. Encoding and decoding count as far as the main " ..
    "thread did or awaited them.", {charts.times(list, 1300)})
  add_charts(out, "Tensors", "The last step of the last epoch: what rank 0 encoded.", charts.layers(list, 640))
  add_settings(out, list)
  out[#out + 1] = ("<script>\n%s</script>\n</body></html>\n"):format(script)
  return table.concat(out, "\n")
end

return M
