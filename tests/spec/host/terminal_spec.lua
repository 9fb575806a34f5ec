-- The prompt on a terminal: Tab completes names, Ctrl-C returns to the prompt. Under mpirun all ranks run each line.
local spawn = require "support.spawn"

local spec = spawn.specs(it, pending)

describe("the prompt on a terminal", function()
  spec("completes names with Tab, and Ctrl-C returns to it", function()
    if spawn.sanitized then return pending "the sanitizer's allocator does not take a fork" end
    local terminal = require("support.terminal").start {}
    terminal:expect "> $"
    terminal:send "atomo.nn.Lin\t(2, 1)\n"
    terminal:expect "atomo%.nn%.Linear%(2, 1%)"
    terminal:expect "Linear%(in_features=2, out_features=1, bias=True%).*> $"
    terminal:send "ma\t.ma\t(3, 4)\n"
    terminal:expect "math%.max%(3, 4%)\r?\n.-4\r?\n.-> $"
    terminal:send "io.write 'runs' io.flush() while true do end\n"
    terminal:expect "while true do end\r?\n.-runs"
    terminal:send "\3"
    terminal:expect "interrupted.*> $"
    terminal:send "6 * 7\n"
    terminal:expect "\r42\r?\n.-> $"
    terminal:send "\4"
    assert.equal(0, terminal:wait())
  end)

  spec("Tab offers functions after a colon, fields after a dot, and words at the start", function()
    local out, code = spawn.host {"-e", [[
      local complete = require "atomo.host.prompt".complete
      atomo, t = require "atomo", require "atomo".ones(2)
      for _, word in ipairs {"t:su", "t.h", "atomo.schedule.co", "wh", "nope.x", "t.zz", "(t).x", "atomo.F.silu"} do
        print(table.concat(complete(word), " "))
      end]]}
    assert.equal("t:su t:sub t:sub_ t:sum\nt.h\natomo.schedule.co atomo.schedule.constant atomo.schedule.cosine\n" ..
      "while\n\n\n\natomo.F.silu\n", out)
    assert.equal(0, code)
  end)

  spec("under mpirun: rank 0 reads, all ranks run a line, errors name the ranks", function()
    local out, code = spawn.ranks(2, "-i", {stdin = table.concat({
      "local t = atomo.full({2}, atomo.mpi.world.rank + 1) print(atomo.mpi.world:allreduce(t):get(1))",
      "if atomo.mpi.world.rank == 1 then error 'only here' end",
      "error 'everywhere'",
      "x = = 3",
      "for i = 1, 2 do",
      "y = atomo.mpi.world.size * i end",
      "'y is ' .. y"}, "\n") .. "\n"})
    assert.equal(0, code, out)
    local function count(text) return select(2, out:gsub(text, "")) end
    assert.same({2, 1, 1, 0, 1, 1}, {count "%f[%d]3\r?\n", count "%[rank 1%] stdin:1: only here", count "everywhere",
      count "%[ranks", count "unexpected symbol near '='", count "y is 4"}, out)
  end, true)
end)
