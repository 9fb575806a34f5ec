-- scripts/report.lua as a user runs it: a row a run, and a chart of the losses.
local log = require "atomo.core.log"
local root = require "support.root"
local spawn = require "support.spawn"
local script = spawn.quote(root .. "scripts/report.lua")

--- A log of 500 steps in 2 epochs; one loss is NaN, as of a skipped step.
local function write_log(path)
  local file = log.open(path)
  file:write {event = "run", settings = {model = "lenet", compress = "none"}, ranks = 1}
  for step = 1, 500 do
    file:write {event = "step", step = step, loss = step == 7 and 0 / 0 or 3 / math.sqrt(step), bytes_out = 0}
    if step % 250 == 0 then
      file:write {event = "epoch", epoch = step / 250, time = step, test_loss = 4 / math.sqrt(step),
        test_accuracy = 0.5}
    end
  end
  file:close()
end

describe("report.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("prints a row a run and draws training and test loss", function()
    local base = os.tmpname()
    os.remove(base)
    write_log(base)
    local out, code = spawn.host(script .. " " .. base .. " --plot " .. base)
    assert.equal(0, code, out)
    assert.matches("lenet +none +1 +500 +50.00 %%", out)
    assert.matches("written: " .. base:gsub("%p", "%%%0") .. ".svg", out)
    local file = assert(io.open(base .. ".svg"))
    local svg = file:read "*a"
    file:close()
    for _, ending in ipairs {"", ".svg", ".png"} do os.remove(base .. ending) end
    assert.matches("Loss over steps", svg)
    assert.matches(">training</text>", svg)
    assert.matches(">test</text>", svg)
    assert.is_nil(svg:find "nan")
    local longest = 0
    for points in svg:gmatch 'points="([^"]*)"' do
      local _, n = points:gsub("%S+,%S+", "")
      longest = math.max(longest, n)
    end
    assert.is_true(longest > 100 and longest <= 200, ("%d points"):format(longest))
  end)

  it("refuses to write the page as a picture, and says what draws one", function()
    local base = os.tmpname()
    write_log(base)
    for _, kind in ipairs {"svg", "PNG", "pdf"} do
      local out, code = spawn.host(("%s %s -o %s.%s"):format(script, base, base, kind))
      assert.equal(2, code, out)
      assert.matches(("%s: the page is HTML, name it FILE.html; %%-%%-charts PREFIX and"):format(kind), out)
      assert.is_nil(io.open(base .. "." .. kind))
    end
    os.remove(base)
  end)
end)
