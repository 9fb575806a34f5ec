-- A failed write ends the program with an error, in compiled code, too: logs, progress lines, tables, print, charts.
-- Writes fail on a file system of 64 kB if one can be mounted, else by a limit on the size of files, or on /dev/full.
-- test: slow
local spawn = require "support.spawn"

if not spawn.possible() then
  return pending "output_spec: runs in the host program, not under mpirun"
end

local can_mount = os.execute "unshare -rm sh -c 'mount -t tmpfs -o size=64k none /mnt' >/dev/null 2>&1" == 0

--- Runs a Lua chunk in a folder D that holds 64 kB; the environment's variable D names it.
local function in_little_room(chunk, opts)
  local path, remove = spawn.file(chunk)
  local command = can_mount and "unshare -rm sh -c 'mount -t tmpfs -o size=64k none /mnt && cd /mnt && %s %s %s'" or
    "sh -c 'ulimit -f 64 && cd $(mktemp -d) && %s %s %s'"
  local out, code = spawn.run(command:format(spawn.exe, opts or "", path), {timeout = 60})
  remove()
  return out, code
end

describe("on a full disk", function()
  for _, mode in ipairs {"-jon", "-joff"} do
    it("a log raises at once, with its path, under " .. mode, function()
      local out, code = in_little_room([[
        local log = require("atomo.core.log").open "run.jsonl"
        for i = 1, 3000 do
          log:write {event = "step", step = i, loss = i / 7, text = ("x"):rep(40)}
        end
      ]], mode)
      assert.equal(1, code, out)
      assert.matches("log: writing run.jsonl: ", out)
      assert.matches("_spec.lua:3:", out) -- the user's line
    end)

    it("a log of a training run ends the run, under " .. mode, function()
      local out, code = in_little_room([[
        local atomo = require "atomo"
        local model = atomo.nn.Linear(2, 2)
        local batch = {x = atomo.ones(4, 2), y = atomo.tensor({0, 1, 0, 1}, "i32"), n = 4, total = 4}
        local data = {steps = 3000, epoch = function(self)
          local i = 0
          return function()
            i = i + 1
            if i <= self.steps then return batch end
          end
        end}
        atomo.train {model = model, data = data, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01},
          quiet = true, log = "run.jsonl"}
      ]], mode)
      assert.equal(1, code, out)
      assert.matches("log: writing run.jsonl: ", out)
    end)

    it("no line of standard output is lost in silence, under " .. mode, function()
      for name, body in pairs {
        ["print"] = "print(i, 'some text')",
        ["io.write"] = "io.write(i, ' some text\\n')",
        ["io.write, checked"] = "local ok = io.write(i, ' some text\\n')",
        ["files.say"] = "require('atomo.core.files').say('some text')",
        ["progress"] = "p = p or require('atomo').log.progress {total = 3000, every = 1}  p:update(i, 'some text')",
        ["one line"] = "if i == 1 then io.write('x\\n') end",
      } do
        local path, remove = spawn.file(("local p\nfor i = 1, 9000 do %s end\np = p"):format(body))
        for place, why in pairs {["> /dev/full"] = "No space left on device", [">&-"] = "Bad file descriptor"} do
          local out, code = spawn.run(("sh -c '%s %s %s %s'"):format(spawn.exe, mode, path, place), {timeout = 60})
          assert.equal(1, code, name .. place .. ": " .. out)
          assert.matches("writing standard output: " .. why, out, name .. place)
        end
        remove()
      end
    end)
  end

  it("--version and --help report it too", function()
    for _, option in ipairs {"--version", "--help"} do
      local out, code = spawn.run(("sh -c '%s %s > /dev/full'"):format(spawn.exe, option))
      assert.equal(1, code, out)
      assert.matches("writing standard output", out)
    end
  end)

  it("a file that is written whole stays as it was", function()
    local out, code = in_little_room [[
      local files = require "atomo.core.files"
      files.save("spec", "figures.json", "old")
      local ok, text = pcall(files.save, "spec", "figures.json", ("x"):rep(1e6))
      print(ok, text, io.open("figures.json"):read "*a")
    ]]
    assert.equal(0, code, out)
    assert.matches("^false\t.*spec: write: [^\n]*figures.json: [^\n]*before is unchanged\told\n", out)
  end)

  for name, case in pairs {
    ["an array of NumPy's"] = {"x.npy", [[t:save_npy(path)]]},
    ["a file of safetensors"] = {"x.safetensors", [[require("atomo.tensor.safetensors").save(path, {t = t})]]},
  } do
    it("is unchanged, and no temporary file is left: " .. name, function()
      local path, save = unpack(case)
      local out, code = in_little_room(([[
        local atomo, path = require "atomo", %q
        local function save(t) %s end
        local function read() local f = io.open(path, "rb") local all = f:read "*a" f:close() return all end
        save(atomo.ones(3))
        local before = read()
        for _, t in ipairs {atomo.zeros(1000000), atomo.zeros(2000, 500):t(), atomo.zeros(16300)} do
          local ok, text = pcall(save, t)
          print("SAVED", ok, text)
          assert(read() == before)
        end
        local list = io.popen "ls -A":read "*a"
        print("LEFT " .. list:gsub("\n", " "))
      ]]):format(path, save))
      assert.equal(0, code, out)
      assert.equal(3, select(2, out:gsub("SAVED\tfalse\t[^\n]*write: [^\n]*" .. path:gsub("%p", "%%%0") ..
        ": [^\n]*before is unchanged", "")), out)
      assert.truthy(out:find("LEFT " .. path .. " \n", 1, true), out)
    end)

    it("is written to, not replaced, if it is not a regular file: " .. name, function()
      local path, remove = spawn.file(([[
        local atomo, path = require "atomo", arg[1]
        local function save(t) %s end
        print(pcall(save, atomo.ones(3)))
      ]]):format(case[2]))
      local link, place = os.tmpname(), os.tmpname()
      os.execute(("ln -sf /dev/full %s"):format(link))
      local out = spawn.host {path, link}
      assert.matches("false\t[^\n]*writing [^\n]*: No space left", out)
      os.execute(("ln -sf %s %s"):format(place, link))
      out = spawn.host {path, link}
      remove()
      assert.matches("true", out)
      assert.equal(0, os.execute(("test -L %s -a -s %s"):format(link, place)))
      os.remove(link)
      os.remove(place)
    end)
  end

  it("the flight recorder reports it, and keeps its earlier file", function()
    local out, code = in_little_room [[
      local atomo, ffi = require "atomo", require "ffi"
      local C = require("atomo.ffi").C
      local function read() local f = io.open "f.jsonl" local all = f:read "*a" f:close() return all end
      assert(C.atomo_flight_write("f.jsonl", "the first") == 0)
      local before = read()
      local filler, room = io.open("filler", "w"), ("x"):rep(1024)
      filler:setvbuf "no"
      while filler:write(room) do end
      for _ = 1, 300 do atomo.mpi.world:barrier() end
      print("WROTE", C.atomo_flight_write("f.jsonl", "the second") < 0, ffi.string(C.atomo_last_error()))
      print(read() == before, io.open "f.jsonl.part")
    ]]
    if not can_mount then return pending "wants a small file system" end
    assert.equal(0, code, out)
    assert.matches("WROTE\ttrue\tflight_write: f.jsonl: No space left on device", out)
    assert.matches("true\tnil", out)
  end)

  it("a job that the watchdog ends still ends, and reports that its records are lost", function()
    if not can_mount or not spawn.have "mpirun" then return pending "wants a small file system, and mpirun" end
    local path, remove = spawn.file [[
      local atomo = require "atomo"
      local world = atomo.mpi.world
      atomo.exchange {stall_warn = 1, stall_abort = 2}
      if world.rank == 0 then world:barrier() end
      require("ffi").cdef "int sleep(unsigned int);"
      require("ffi").C.sleep(1000)
    ]]
    local out, code = spawn.run(("unshare -rm sh -c 'mount -t tmpfs -o size=64k none /mnt && cd /mnt && " ..
      "(head -c 100000 /dev/zero > filler 2>/dev/null; mpirun --oversubscribe -n 2 %s %s)'"):format(spawn.exe, path),
      {timeout = 60})
    remove()
    assert.equal(75, code, out)
    assert.matches("flight_write: flight%-rank0.jsonl: No space left on device", out)
    assert.matches("stopped by the watchdog", out)
  end)

  it("a file that is not a regular one is written to, not replaced", function()
    local files = require "atomo.core.files"
    assert.error_matches(function() files.save("spec", "/dev/full", "text") end, "writing /dev/full: No space left")
    local plot = require "atomo.tools.plot"
    assert.error_matches(function()
      plot.save("/nowhere/x", {title = "t", series = {{name = "a", points = {{1, 1}, {2, 2}}}}, x = {}, y = {}})
    end, "plot: write: cannot write /nowhere/x.svg")
    assert.truthy(io.open "/dev/full")
  end)
end)
