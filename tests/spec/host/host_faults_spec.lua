-- How jobs end: signals, errors on one of four ranks, os.exit under mpirun, the test runner's own exit code.
-- test: slow
local root = require "support.root"
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

local function has(text, want)
  assert(text:find(want, 1, true), ("expected %q in:\n%s"):format(want, text))
end

--- Runs the script on four ranks; asserts that it takes less than ten seconds; returns output and exit code.
local function four(script, args)
  local path, remove = spawn.file(script)
  local out, code, seconds = spawn.ranks(4, path .. " " .. (args or ""))
  remove()
  assert(spawn.in_time(seconds, 10), "the job took " .. seconds .. " s to end")
  return out, code, path
end

--- Runs the code, sends the signal when it calls `begun`; returns exit code and output.
local function signalled(signal, options, before, code_text)
  local up = os.tmpname()
  os.remove(up)
  local text = before .. (" io.open(%q, 'w'):close() "):format(up) .. code_text
  local out, code = spawn.signalled(("%s %s -e %s"):format(spawn.exe, options, spawn.quote(text)), up, {signal})
  return code, out
end

describe("signals", function()
  spec("SIGINT stops an interpreted loop with a traceback", function()
    local code, out = signalled("INT", "-joff", "", "while true do end")
    assert.equal(130, code)
    has(out, "(command line):1: interrupted")
    has(out, "stack traceback")
  end)

  spec("SIGINT stops a compiled loop", function()
    local code, out = signalled("INT", "", "for _ = 1, 1e6 do end", "while true do end")
    assert.equal(130, code)
    has(out, "interrupted in compiled code or a C call")
  end)

  spec("SIGINT stops a long C call", function()
    local code, out = signalled("INT", "", [[local a = require "atomo"
      local x = a.randn(600, 600) a.svd(x)]], "while true do a.svd(x) end")
    assert.equal(130, code)
    has(out, "interrupted")
  end)

  spec("SIGTERM ends with a last word", function()
    local code, out = signalled("TERM", "-joff", "", "while true do end")
    assert.equal(143, code)
    has(out, "terminated (SIGTERM)")
  end)

  spec("an interrupted line returns to the prompt", function()
    local up = os.tmpname()
    os.remove(up)
    local lines = ("print(1)\nio.open(%q, 'w'):close() while true do end\n"):format(up)
    local text = ("{ printf %%s %s; until [ -e %s.sent ]; do sleep 0.05; done; echo 'print(2)'; } | " ..
      "{ exec 3<&0; %s -i <&3 & pid=$!; until [ -e %s ]; do sleep 0.05; done; kill -INT $pid; touch %s.sent; " ..
      "wait $pid; }"):format(spawn.quote(lines), up, spawn.exe, up, up)
    local out, code = spawn.run("sh -c " .. spawn.quote(text), {timeout = 15})
    os.remove(up)
    os.remove(up .. ".sent")
    assert.equal(0, code)
    has(out, "1\n")
    has(out, "interrupted")
    has(out, "2\n")
  end)
end)

describe("under mpirun", function()
  spec("an error on one rank ends all four, and names rank, line and step", function()
    local out, code, path = four [[
      local world = require "atomo".mpi.world
      require "ffi".C.atomo_note_step(37)
      if world.rank == 2 then local t = nil; print(t.x) end
      world:barrier()]]
    assert.equal(1, code)
    has(out, "rank 2 of 4 on ")
    has(out, "step 37")
    has(out, path .. ":3: attempt to index local 't'")
    has(out, "stack traceback")
    has(out, "What to do")
  end, true)

  spec("an error that several ranks have is printed once, another one in a line of its own", function()
    for _, case in ipairs {{"error 'bad weather'", 1, 0},
        {"if w.rank > 0 then error 'bad weather' end w:barrier()", 1, 0},
        {"w:allreduce(a.ones(w.rank == 2 and 3 or 4))", 1, 0},
        {"error(w.rank == 2 and 'ill wind' or 'bad weather')", 1, 1}} do
      local body, frames, most_lines = unpack(case)
      local out, code = four("local a = require 'atomo' local w = a.mpi.world w:barrier() " .. body)
      assert.equal(1, code)
      assert.equal(frames, select(2, out:gsub("stopped by an error", "")), out)
      local lines = select(2, ("\n" .. out):gsub("\natomo%-lua: rank", ""))
      assert(lines <= most_lines, out)
      if body:find "ill wind" then assert(out:find "ill wind" or out:find "bad weather", out) end
    end
  end, true)

  spec("an error on one rank is the only one printed, wherever the others are", function()
    for rank = 0, 2, 2 do
      for _, others in ipairs {"jit.off() while true do end", "while true do end", "w:barrier()",
          "jit.off() while true do pcall(function() while true do end end) end"} do
        local out, code = four(("local w = require('atomo').mpi.world w:barrier() " ..
          "if w.rank == %d then error 'bad weather' end %s"):format(rank, others))
        assert.equal(1, code)
        has(out, ("rank %d of 4 on "):format(rank))
        assert.equal(1, select(2, out:gsub("bad weather", "")), out)
        assert.is_nil(out:find("terminated", 1, true), out)
      end
    end
  end, true)

  spec("a job that is cancelled says so at most once (mpirun may end before it has read it)", function()
    local up = os.tmpname()
    for _, loop in ipairs {"jit.off() while true do end", "while true do end"} do
      os.remove(up)
      local text = ("local w = require('atomo').mpi.world w:barrier() " ..
        "if w.rank == 0 then io.open(%q, 'w'):close() end %s"):format(up, loop)
      local path, remove = spawn.file(text)
      local out, code = spawn.signalled(("mpirun --oversubscribe -n 3 %s %s"):format(spawn.exe, path), up, {"TERM"})
      remove()
      assert(code ~= 0)
      assert(select(2, out:gsub("terminated", "")) <= 1, out)
    end
    os.remove(up)
  end, true)

  spec("os.exit(3) on one rank ends all four with 3; output before it is not lost", function()
    local out, code = four [[
      local world = require "atomo".mpi.world
      if world.rank == 1 then io.write "before the end\n" os.exit(3) end
      world:barrier()]]
    assert.equal(3, code)
    has(out, "before the end")
  end, true)

  spec("os.exit(0) and the normal end are orderly", function()
    for _, last in ipairs {"os.exit(0)", "os.exit()", "os.exit(true)", ""} do
      local out, code = four("local w = require 'atomo'.mpi.world w:barrier() " .. last)
      assert.equal(0, code)
      assert.equal("", out)
    end
  end, true)

  spec("a syntax error and an unknown option end the job", function()
    local out, code, path = four "x = = 1"
    assert.equal(1, code)
    has(out, path .. ":1: unexpected symbol")
    out, code = spawn.ranks(2, "--bogus")
    assert.equal(2, code)
    has(out, "unknown option '--bogus'")
  end, true)

  spec("processes cannot be started from a rank", function()
    local out, code = four [[
      require "atomo".mpi.world:barrier()
      local ok, message = pcall(io.popen, "true")
      assert(not ok and message:find "not safe", message)
      ok, message = pcall(os.execute, "true")
      assert(not ok and message:find "not safe", message)]]
    assert.equal("", out)
    assert.equal(0, code)
  end, true)

  spec("a script that never uses MPI ends in order", function()
    local _, code = four "local x = 1"
    assert.equal(0, code)
  end, true)
end)

describe("mpirun.sh", function()
  local script = "sh " .. spawn.quote(root .. "scripts/mpirun.sh") .. " "

  -- Programs first in its PATH. ps counts the guard's calls, and makes a file when one has shown a child (seen) and
  -- when many more have followed (enough). sleep waits a tenth of the time.
  local LOOKS = 12 -- more calls than the guard makes before it ends an mpirun
  local programs = {
    ps = [[[ ! -e $dir/child ] || echo >>$dir/looks
      $real_ps "$@"
      [ ! -e $dir/child ] || touch $dir/seen
      [ ! -e $dir/looks ] || [ -e $dir/enough ] || [ $(wc -l <$dir/looks) -lt ]] .. LOOKS .. [[ ] || {
        touch $dir/enough; [ ! -p $dir/pipe ] || : >$dir/pipe; }]],
    sleep = "exec $real_sleep ${1%.*}.0${1#*.}",
  }

  --- Runs mpirun.sh with a shell script `text` in place of mpirun ($dir: a temporary folder). before: commands that run
  --- first. The guard takes children of the script for ranks.
  local function with_mpirun(text, before)
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(("mkdir %s"):format(folder)) == 0)
    programs.mpirun = text
    for name, body in pairs(programs) do
      local file = assert(io.open(folder .. "/" .. name, "w"))
      file:write("#!/bin/sh\n", body, "\n")
      file:close()
    end
    local out, code = spawn.run(("sh -c 'export dir=%s real_ps=$(command -v ps) real_sleep=$(command -v sleep); " ..
      "chmod +x $dir/*; %s PATH=$dir:$PATH exec %s -n 2 x'"):format(folder, before or "", script), {timeout = 60})
    os.execute("rm -r " .. folder)
    return out, code
  end

  -- A child until the guard has seen it.
  local ranks = "sleep 600.0 & child=$!; touch $dir/child; until [ -e $dir/seen ]; do $real_sleep 0.05; done; " ..
    "kill $child; wait $child 2>/dev/null\n"

  spec("ends an mpirun that sleeps on when all its ranks are gone", function()
    local out, code = with_mpirun(ranks .. "exec $real_sleep 600")
    assert.equal(137, code)
    has(out, "every rank is gone, but mpirun (pid ")
  end)

  spec("lets an mpirun be that has no ranks yet, or works", function()
    local out, code = with_mpirun(": >$dir/child; exec cat $dir/pipe", "mkfifo $dir/pipe;")
    assert.equal("", out)
    assert.equal(0, code)
    local busy = spawn.quote("local enough = os.getenv 'dir' .. '/enough' while not io.open(enough) do " ..
      "for _ = 1, 1e6 do end end os.exit(4)")
    out, code = with_mpirun(ranks .. ("exec %s -joff -e %s"):format(spawn.quote(spawn.exe), busy))
    assert.equal("", out)
    assert.equal(4, code)
  end)

  spec("hands on standard input and the exit code", function()
    local out, code = spawn.run(script .. "-n 2 cat 2>/dev/null", {stdin = "hello"})
    assert.equal("hello", out)
    assert.equal(0, code)
    assert.equal(3, (select(2, spawn.run(script .. "-n 2 sh -c 'exit 3' 2>/dev/null"))))
  end, true)
end)

describe("a stock luajit", function()
  local function stock(ranks, script)
    local path, remove = spawn.file(script)
    local lua = spawn.exe:match("^(.*)/") .. "/lua"
    local env = ("LUA_PATH=%s"):format(spawn.quote(("%s/?.lua;%s/?/init.lua;;"):format(lua, lua)))
    local launch = ranks and ("mpirun --oversubscribe -n %d "):format(ranks) or ""
    local out, code = spawn.run(launch .. "luajit " .. path, {env = env, timeout = 30})
    remove()
    return out, code
  end

  spec("loads the library, and ends MPI in order", function()
    if not spawn.have "luajit" then return pending "luajit is missing" end
    if spawn.sanitized then return pending "built with a sanitizer" end
    local script = [[local a = require "atomo"
      io.write(a.mpi.world:allreduce(a.ones(2)):get(1), "\n")]]
    local out, code = stock(nil, script)
    assert.equal("1\n", out)
    assert.equal(0, code)
    out, code = stock(2, script)
    assert.equal("2\n2\n", out)
    assert.equal(0, code)
  end, true)

  spec("ends the other ranks when its script fails", function()
    if not spawn.have "luajit" then return pending "luajit is missing" end
    if spawn.sanitized then return pending "built with a sanitizer" end
    local out, code = stock(3, [[local w = require "atomo".mpi.world
      if w.rank == 1 then error "only here" end
      w:barrier()]])
    has(out, "only here")
    assert.equal(1, code)
  end, true)
end)

describe("atomo-lua test", function()
  local passing = "describe('d', function() it('good', function() end) end)"

  spec("counts, and exits 1 on a failure", function()
    local path, remove = spawn.file(passing .. [[
      it('bad', function() assert.equal(1, 2) end)
      it('later', function() pending 'x' end)]])
    local out, code = spawn.host("test " .. path)
    assert.equal(1, code)
    has(out, "FAILED: bad")
    has(out, "1 passed, 1 failed, 1 skipped\n")
    remove()
    path, remove = spawn.file(passing)
    out, code = spawn.host("test " .. path)
    assert.equal(0, code)
    has(out, "1 passed, 0 failed\n")
    remove()
  end)

  spec("--slowest N lists the specs and files that take longest, with their seconds", function()
    local path, remove = spawn.file(passing .. "it('idle', function() end) it('long', function() " ..
      "local from = os.clock() repeat until os.clock() - from > 0.3 end)")
    local out, code = spawn.host("test --slowest 2 " .. path)
    assert.equal(0, code)
    assert.matches("the 2 slowest of 3 specs:\n +%d+%.%d+ s  " .. path:gsub("%p", "%%%0") .. ":%d+  long\n", out)
    assert.matches("the 1 slowest of 1 files:\n +%d+%.%d+ s  " .. path:gsub("%p", "%%%0") .. "\n3 passed, 0 failed\n",
      out)
    out, code = spawn.host("test --slowest none " .. path)
    remove()
    assert.equal(1, code)
    has(out, "--slowest is 'none', expected a whole number above 0")
  end)

  spec("--help prints its usage", function()
    for _, option in ipairs {"--help", "-h"} do
      local out, code = spawn.host("test " .. option)
      assert.equal(0, code)
      has(out, "usage: atomo-lua test")
      has(out, "--slowest N")
    end
  end)

  spec("fails where the spec file itself is broken or missing", function()
    local path, remove = spawn.file "x = = 1"
    local out, code = spawn.host("test " .. path)
    assert.equal(1, code)
    has(out, "unexpected symbol")
    remove()
    out, code = spawn.host "test /no/such/folder"
    assert.equal(1, code)
    has(out, "/no/such/folder")
    path, remove = spawn.file(passing)
    out, code = spawn.host("test --filter nothing_like_it " .. path)
    remove()
    assert.equal(1, code)
    has(out, "no spec ran")
  end)

  spec("a failure on one rank only fails all", function()
    local path, remove = spawn.file(passing .. [[it("half", function()
      assert(require "atomo".mpi.world.rank ~= 1, "only on rank one")
    end)]])
    local out, code = spawn.ranks(3, "test " .. path)
    remove()
    assert.equal(1, code)
    has(out, "FAILED on rank 1: half")
    has(out, "only on rank one")
    has(out, "1 passed, 1 failed\n")
    assert(not out:find "FAILED on rank 0")
  end, true)

  spec("busted --lua=atomo-lua works too", function()
    if not spawn.have "busted" then return pending "busted is missing" end
    local path, remove = spawn.file "it('has ffi', function() assert(require 'atomo'.ones(1)) end)"
    local out, code = spawn.run(("busted --lua=%s %s"):format(spawn.exe, path))
    remove()
    has(out, "1 success")
    assert.equal(0, code)
  end)
end)
