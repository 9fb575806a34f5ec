-- The page of scripts/report.lua: what its charts and tables show, and the page in a headless Chromium.
-- test: slow
local log = require "atomo.core.log"
local plot = require "atomo.tools.plot"
local root = require "support.root"
local read = require("support.shell").content
local scale = require "atomo.tools.plot.scale"
local spawn = require "support.spawn"
local script = spawn.quote(root .. "scripts/report.lua")

--- Writes a log of 3 epochs of 40 steps. factor: of the bytes; slow: of the times.
local function write_log(path, compress, factor, slow, lr)
  local file = log.open(path)
  file:write {event = "run", settings = {model = "<lenet>", compress = compress, lr = lr, seed = 0}, ranks = 2,
    versions = {MPI = "x"}, threads = 1}
  for step = 1, 120 do
    local loss = step == 1 and 80 or 3 / math.sqrt(step)
    file:write {event = "step", step = step, epoch = math.ceil(step / 40), time = slow * step, loss = loss,
      accuracy = 1 - loss / 4, bytes_out = factor * 1000, dense_bytes = 64000,
      ms = {data = 1, forward = 10, backward = 20, encode = 4, exchange = 5 * slow, decode = 2, update = 3,
        step = 45 + 5 * slow}}
    if step % 40 == 0 then
      file:write {event = "epoch", epoch = step / 40, time = slow * step + 0.5, test_loss = 4 / math.sqrt(step),
        test_accuracy = 0.2 * step / 40, layers = {
          {name = "conv1.weight", dense_bytes = 4000, bytes = factor * 40, variance = 0.5, square = 2},
          {name = "dense tensors", dense_bytes = 100, bytes = 100}}}
    end
  end
  file:write {event = "end", time = slow * 121, test_loss = 0.3, test_accuracy = 0.6}
  file:close()
end

--- Returns the polyline of a series: its stroke and dashes, and the number of markers after it.
local function curve_of(svg, name)
  local group = assert(svg:match("<title>" .. name:gsub("%p", "%%%0") .. "</title>(.-)</g>"), name)
  local _, circles = group:gsub("<circle", "")
  local _, others = group:gsub("<polygon", "")
  return group:match 'stroke="(#%x+)"', group:match 'stroke%-dasharray="([^"]*)"', circles + others
end

describe("report.lua -o", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local folder, page, logs
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    os.execute("mkdir " .. folder)
    logs = {}
    for i, o in ipairs {{"none", 64, 2, 0.1}, {"svd:ratio=16", 4, 1, 0.1}, {"none", 64, 2, 0.05}} do
      logs[i] = ("%s/%d.jsonl"):format(folder, i)
      write_log(logs[i], unpack(o))
    end
    local out, code = spawn.host(("%s %s -o %s/page.html --charts %s/fig --reach 0.3"):format(script,
      table.concat(logs, " "), folder, folder), {timeout = 60})
    assert(code == 0, out)
    assert(out:find("written: " .. folder .. "/page.html", 1, true), out)
    page = read(folder .. "/page.html")
  end)
  teardown(function() os.execute("rm -r " .. folder) end)

  it("needs no other file, and has no broken number", function()
    for _, foreign in ipairs {"src=", "href=", "@import", "nan", ">-0<", "inf,"} do
      assert.is_nil(page:find(foreign, 1, true), foreign)
    end
    for address in page:gmatch "https?://[%w./]+" do assert.equal("http://www.w3.org/2000/svg", address) end
    assert.is_nil(page:find("<lenet>", 1, true)) -- escaped
    assert.truthy(page:find("&lt;lenet&gt;", 1, true))
    local ids = {}
    for id in page:gmatch 'clipPath id="([^"]*)"' do
      assert.is_nil(ids[id], id)
      ids[id] = true
    end
  end)

  it("draws both curves of a run in one colour, dashes what lies on another, has few markers", function()
    local svg = read(folder .. "/fig_loss_epochs.svg")
    local runs = {"none (1)", "svd:ratio=16", "none (3)"}
    local seen = {}
    for i, run in ipairs(runs) do
      local test, dashes, markers = curve_of(svg, run .. ", test")
      local training, _, none = curve_of(svg, run .. ", training")
      assert.equal(test, training)
      assert.is_nil(seen[test])
      seen[test] = true
      assert.equal(i > 1, dashes ~= nil, run) -- all three have the same losses
      assert.same({3, 0}, {markers, none})
    end
    assert.is_nil(select(2, curve_of(read(folder .. "/fig_loss_time.svg"), "svd:ratio=16, test")))
    for _, count in ipairs {11, 500} do
      local points = {}
      for i = 1, count do points[i] = {i, i % 7} end
      local text = plot.svg {x = {}, y = {}, series = {{name = "a", points = points}}, legend = false}
      assert.equal(8, select(3, curve_of(text, "a")))
    end
  end)

  it("fits axes to the data: units, no space below 0, spikes left out, logarithms where bytes differ widely", function()
    local time = read(folder .. "/fig_loss_time.svg")
    assert.truthy(time:find(">time, min<", 1, true)) -- 240 seconds
    assert.is_nil(time:find(">80<", 1, true))        -- the loss of step 1
    assert.truthy(read(folder .. "/fig_accuracy_bytes.svg"):find(">sent by rank 0, MB<", 1, true))
    local low, high = scale.range({}, {{points = {{0, 0.01}, {1, 100}}}}, 2)
    assert.equal(0, low)
    assert.is_true(high > 100 and high < 110)
    low, high = scale.range({most = 100}, {{points = {{0, 99}, {1, 100}}}}, 2)
    assert.is_true(low > 98 and high == 100)
    local ticks, step = scale.ticks({}, -0.3, 0.3)
    for _, t in ipairs(ticks) do
      local text = scale.text(t[1], step)
      assert.matches("^-?[%d.]+$", text)
      assert.is_nil(text:find "^%-0%.?0*$", text)
    end
    assert.same({"0.25", "12 k", "1e-4", "1500"}, {scale.text(0.25, 0.05), scale.text(12000), scale.text(1e-4),
      scale.text(1500, 500)})
  end)

  it("shows where a step's time goes, bytes and variance by tensor, results, and settings that differ", function()
    local times = read(folder .. "/fig_step_time.svg")
    for _, part in ipairs {">forward<", ">exchange<", "backward: 20.0", "exchange: 10.0", ">55.0<", ">50.0<"} do
      assert.truthy(times:find(part, 1, true), part)
    end
    local bytes = read(folder .. "/fig_layer_bytes.svg")
    assert.truthy(bytes:find("svd:ratio=16: 160 B of 4.00 kB", 1, true))
    assert.truthy(read(folder .. "/fig_layer_variance.svg"):find("svd:ratio=16: 0.25", 1, true))
    local differ = page:match "<h2>Settings that differ</h2>(.-)</table>"
    assert.truthy(differ:find("<td>lr</td>", 1, true))
    assert.truthy(differ:find(">0.05</td>", 1, true))
    assert.is_nil(differ:find("<td>seed</td>", 1, true))
    assert.truthy(page:find("60.00 %", 1, true))
    assert.truthy(page:find("epoch 2, 2m41s", 1, true)) -- the first with 30 %
  end)

  it("reads logs that lack nearly everything, and reports a log without a run", function()
    local path = folder .. "/short.jsonl"
    local file = log.open(path)
    file:write {event = "run", settings = {compress = "<i>"}}
    file:write {event = "step", step = 1, epoch = 1, loss = 0 / 0}
    file:close()
    local out, code = spawn.host(("%s %s -o %s/short.html"):format(script, path, folder))
    assert.equal(0, code, out)
    local short = read(folder .. "/short.html")
    assert.truthy(short:find("<h2>Results</h2>", 1, true))
    assert.truthy(short:find("</i>&lt;i&gt;</button>", 1, true))
    file = io.open(path, "w")
    file:write '{"event":"step"}\n3\nnonsense\n'
    file:close()
    out, code = spawn.host(("%s %s"):format(script, path))
    assert.equal(1, code)
    assert.matches("no run in " .. path:gsub("%p", "%%%0"), out)
    assert.matches("warning: [^\n]*short.jsonl:3", out)
  end)

  it("opens in a browser without an error of its script; runs can be hidden and rows sorted", function()
    if not spawn.have "chromium" then return pending "Chromium is not installed (Debian's package chromium)" end
    local watched = page:gsub("<head>", "<head><script>window.onerror = function (m) { " ..
      "document.documentElement.dataset.error = m; };</script>", 1)
    watched = watched:gsub("</body>", [[<script>
      document.querySelector('button[data-run="run-2"]').click();
      var hidden = 0, left = 0;
      document.querySelectorAll("svg g[class]").forEach(function (g) {
        if (g.style.display === "none") hidden += g.getAttribute("class") === "run-2" ? 1 : 1000; else left += 1;
      });
      document.querySelectorAll("table.sorted th")[8].click();
      document.body.dataset.found = [hidden > 0 && hidden < 1000, left > 0,
        document.querySelector("table.sorted td").textContent,
        document.querySelector("svg").getBoundingClientRect().width > 300].join(" ");
    </script></body>]], 1)
    local path = folder .. "/watched.html"
    local file = assert(io.open(path, "wb"))
    file:write(watched)
    file:close()
    local chromium = ("chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run " ..
      "--disable-background-networking --disable-component-update --disable-sync --user-data-dir=%s/browser " ..
      "--enable-logging=stderr "):format(folder)
    local out, code = spawn.run(chromium .. "--dump-dom file://" .. path, {timeout = 60})
    assert.equal(0, code, out)
    assert.matches('<body data%-ready="yes" data%-found="true true svd:ratio=16 true"', out)
    assert.is_nil(out:find("data-error", 1, true))
    assert.is_nil(out:find("CONSOLE", 1, true), out:match "[^\n]*CONSOLE[^\n]*")
    local picture = folder .. "/page.png"
    out, code = spawn.run(chromium .. ("--window-size=1400,1200 --screenshot=%s file://%s"):format(picture, path),
      {timeout = 60})
    assert.equal(0, code, out)
    assert.equal("\137PNG", read(picture):sub(1, 4))
  end)
end)
