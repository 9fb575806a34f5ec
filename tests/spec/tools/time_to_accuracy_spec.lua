-- scripts/time_to_accuracy.lua as a person runs it: tables, JSON and charts of short runs, going on where it stopped,
-- runs that fail or last too long, signals, misuse.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"
local log = require("atomo").log
local script = spawn.quote(root .. "scripts/time_to_accuracy.lua")

local folder = os.tmpname()
os.remove(folder)

--- The script, into a folder of this name.
local function driver(name, args)
  return ("%s %s --out %s/%s --model mlp --epochs 1 --batch 40 %s"):format(spawn.quote(spawn.exe), script,
    folder, name, args)
end
local short = " --reach 0.01 --train='--train-images 160'"

local function has(text, what) assert(text:find(what, 1, true), ("expected %q in:\n%s"):format(what, text)) end

local function results(name)
  local file = assert(io.open(folder .. "/" .. name .. "/results.json"))
  local all = log.decode(file:read "*a")
  file:close()
  return all
end

--- A launcher that is no mpirun: a shell script. Its path.
local function launcher(name, text)
  os.execute("mkdir -p " .. folder)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

describe("time_to_accuracy.lua", function()
  if spawn.sanitized then return pending "starts other programs only: tested in the release build" end
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  teardown(function() os.execute("rm -rf " .. folder) end)

  it("runs, prints and writes results; started again, it continues", function()
    local args = "--compress 'none entry:ratio=8@sharded'" .. short
    local out, code = spawn.run(driver("a", args .. " --lr 0.01,0.02"), {timeout = 60})
    assert.equal(0, code, out)
    for _, text in ipairs {"entry:ratio=8@sharded", "2 ranks, batch 40 a rank, shared memory", "* chosen",
      "to 1 %, against", "NOT TESTED", "accuracy_time.svg", "accuracy_bytes.svg"} do has(out, text) end
    local all = results "a"
    assert.equal(2, #all.results)
    local r = all.results[2]
    assert.same({"entry:ratio=8", "sharded", 1}, {r.compress, r.topology, r.seeds_done})
    assert.is_true(r.reach[1].seconds > 0 and r.runs[1].steps == 2 and #r.runs[1].points == 1)
    assert.is_true(r.runs[1].bytes_step < all.results[1].runs[1].bytes_step)
    assert(os.remove(r.runs[1].log))
    out, code = spawn.run(driver("a", args .. " --lr 0.01,0.02"), {timeout = 60})
    assert.equal(0, code, out)
    assert.equal(1, select(2, out:gsub("done in", "")), "one of the four runs had no log")
    out, code = spawn.run(driver("a", "--compress 'none svd' --lr 0.02 --report" .. short))
    assert.equal(0, code, out)
    assert.matches("svd +0.02 +0/1 +not run", out)
    assert.is_nil(out:find("done in", 1, true))
  end)

  it("uses times from a network and accuracies from shared memory if the runs are bit-identical", function()
    local net = launcher("net.sh", "exec mpirun --oversubscribe -n 2 \"$@\"\n")
    local out, code = spawn.run(driver("b", ("--compress entry --lr 0.01 --time-steps 2 --warm 1 --launch 'sh %s'%s")
      :format(net, short)), {timeout = 60})
    assert.equal(0, code, out)
    has(out, "bit-identical to the trained ones")
    local r = results("b").results[1].runs[1]
    assert.is_true(math.abs(r.points[1].seconds - 2 * r.step_ms / 1e3) < 1e-9)
    local other = launcher("other.sh", "exec mpirun --oversubscribe -n 2 \"$@\" --weight-decay 0.3\n")
    out, code = spawn.run(driver("b", ("--compress entry --lr 0.01 --time-steps 2 --warm 1 --launch 'sh %s'%s")
      :format(other, short)), {timeout = 60})
    assert.equal(1, code, out)
    has(out, "at step 2 its loss is")
  end)

  it("continues after a run that fails, lasts too long or writes no log, and has exit code 1 then", function()
    local out, code = spawn.run(driver("c", "--ranks 1 --compress 'nonesuch none' --lr 0.01" .. short), {timeout = 60})
    assert.equal(1, code, out)
    assert.matches("FAILED: exit code %d+: .*unknown compressor 'nonesuch'", out)
    assert.matches("nonesuch +0.01 +0/1 +failed", out)
    assert.equal(1, results("c").results[2].seeds_done)
    out, code = spawn.run(driver("c", ("--compress none --limit 0.3 --launch 'sh %s'"):format(
      launcher("slow.sh", "exec sleep 60\n"))))
    assert.equal(1, code, out)
    has(out, "ended after 0.3 s (--limit)")
    out, code = spawn.run(driver("c", "--compress none --launch true"))
    assert.equal(1, code, out)
    has(out, "it ended well but wrote no log")
  end)

  it("leaves no process behind when a signal ends it", function()
    local path = launcher("wait.sh", "echo $$ > " .. folder .. "/pid\nexec sleep 60\n")
    for signal, wanted in pairs {INT = 130, TERM = 143} do
      os.remove(folder .. "/pid")
      local text = ("%s & p=$!; while [ ! -s %s/pid ]; do sleep 0.05; done; kill -%s $p; wait $p; echo code $?; " ..
        "n=0; while kill -0 $(cat %s/pid) 2>/dev/null; do sleep 0.1; n=$((n + 1)); " ..
        "[ $n -lt 200 ] || { echo alive; break; }; done"):format(
        driver("d", "--compress none --launch 'sh " .. path .. "'"), folder, signal, folder)
      local out = spawn.run("sh -c " .. spawn.quote(text), {timeout = 30})
      has(out, "code " .. wanted)
      assert.is_nil(out:find("alive", 1, true), out)
    end
  end)

  it("refuses options that exclude each other, with exit code 2", function()
    for args, text in pairs {["--net 1gbit --launch x"] = "one of --launch and --net",
      ["--time-steps 5"] = "needs a network", ["--net 1gbit --time-steps 2"] = "more than --warm",
      ["--lr 0"] = "--lr is '0'", ["--reach 2"] = "--reach is '2'"} do
      local out, code = spawn.run(driver("e", args))
      assert.equal(2, code, out)
      has(out, text)
    end
    local out, code = spawn.ranks(2, script .. " --out " .. folder .. "/e")
    assert.equal(2, code, out)
    has(out, "start it without mpirun")
  end)
end)
