-- scripts/watch.lua as a user runs it, and charts in characters.
local log = require "atomo.core.log"
local root = require "support.root"
local spawn = require "support.spawn"
local text_chart = require "atomo.tools.text_chart"
local with_file = require "support.with_file"
local script = spawn.quote(root .. "scripts/watch.lua")

--- Writes a run of `steps` steps with an epoch event every 10.
local function write_run(path, steps, compress, ends)
  local file = log.open(path)
  file:write {event = "run", settings = {model = "lenet", compress = compress, epochs = 4}, ranks = 2}
  for step = 1, steps do
    file:write {event = "step", step = step, epoch = math.ceil(step / 10), time = step, loss = 3 / step,
      accuracy = step / 100, bytes_out = 2e6, dense_bytes = 8e6, images_per_s = 64,
      ms = {forward = 400, backward = 500, step = 1000}}
    if step % 10 == 0 then
      file:write {event = "epoch", epoch = step / 10, time = step, loss = 1, accuracy = 0.5, test_loss = 2 / step,
        test_accuracy = 0.25}
    end
  end
  if ends then file:write {event = "end", time = steps} end
  file:close()
end

local function has(text, ...)
  for _, what in ipairs {...} do assert(text:find(what, 1, true), ("expected %q in:\n%s"):format(what, text)) end
end

describe("text charts", function()
  it("place points, join them, and label both axes", function()
    local lines = text_chart.lines {title = "t", x = {label = "step"}, y = {}, width = 11 + 21, height = 11 + 3,
      series = {{points = {{0, 0}, {10, 5}, {20, 10}}}, {points = {{20, 0}}, number = 3}}}
    assert.equal("t", lines[1])
    assert.equal(14, #lines)
    local columns = {}
    for i = 2, 12 do
      assert.is_true(#lines[i] <= 32)
      columns[i] = lines[i]:sub(12):find "%*"
    end
    assert.equal(21, columns[2])  -- 10 at step 20, in the first row
    assert.equal(1, columns[12])  -- 0 at step 0, in the last one
    for i = 3, 11 do assert.truthy(columns[i]) end -- a line joins them
    assert.equal(21, lines[12]:sub(12):find "%+")
    assert.matches("^ +0 +step +20$", lines[14])
    for _, label in ipairs {"0", "6", "10"} do
      assert.matches("\n +" .. label .. " %+", "\n" .. table.concat(lines, "\n"))
    end
  end)

  it("draw a single point, and nothing", function()
    has(table.concat(text_chart.lines {x = {}, series = {{points = {{3, 7}}}}, width = 40, height = 8}, "\n"), "*")
    assert.equal(7, #text_chart.lines {x = {}, series = {}, width = 40, height = 8})
  end)
end)

describe("watch.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  it("prints a run that has not ended, once, with the log's last line half written", function()
    with_file("", ".jsonl", function(path)
      write_run(path, 25, "svd:ratio=4")
      local file = io.open(path, "a")
      file:write '{"event":"step","st'
      file:close()
      local out, code = spawn.host(("%s %s --width 60 --height 9"):format(script, path))
      assert.equal(0, code, out)
      has(out, path .. ": lenet, svd:ratio=4, 2 ranks", "epoch 3/4, step 25, loss 0.1200, 25.0 s\n",
        "64 img/s, 1000.0 ms/step, 2.00 MB/step, 2.00 MB/s, 4.0x less than dense",
        "[forward 40% backward 50% other 10%]", "loss (* training, o test)", "accuracy, % (* training, o test)",
        "25.00 %")
      for line in out:gmatch "[^\n]+" do
        if line:find "^ +%d* [|+]" then assert(#line <= 60, line) end
      end
    end)
  end)

  it("compares runs, ends when all have ended, and refuses a file that is no log", function()
    with_file("", ".jsonl", function(one)
      with_file("", ".jsonl", function(other)
        write_run(one, 20, "none", true)
        write_run(other, 20, "entry:ratio=8", true)
        local out, code = spawn.host(("%s %s %s --every 0.1"):format(script, one, other))
        assert.equal(0, code, out)
        has(out, "drawn as *", "drawn as o", "loss in tests", "ended")
        if spawn.have "script" then
          out, code = spawn.run(("script -qec 'stty cols 50; %s %s %s' /dev/null"):format(spawn.exe,
            root .. "scripts/watch.lua", one), {env = "TERM=xterm"})
          assert.equal(0, code, out)
          has(out, "\27[H\27[J", "ended")
        end
      end)
    end)
    with_file("nothing\n", ".jsonl", function(path)
      local out, code = spawn.host(("%s %s --once"):format(script, path))
      assert.equal(1, code)
      has(out, "no run in " .. path)
    end)
  end)
end)
