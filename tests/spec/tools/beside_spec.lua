-- A step of another program in turn with ours, for bench_nn.lua --beside (atomo.tools.beside).
local root = require "support.root"
local spawn = require "support.spawn"
local beside = require "atomo.tools.beside"

describe("beside", function()
  if not spawn.possible() then return pending "starts programs, not under mpirun" end

  it("reads the last median that a command prints", function()
    assert.near(0.0125, beside.run "echo 'first median 99 ms'; echo 'lstm f32 median 12.5 ms min 3.0 ms'", 1e-12)
  end)

  it("reports a command that fails, and one that prints no time, with the output", function()
    assert.error_matches(function() beside.run "echo no torch; exit 3" end,
      "beside: `echo no torch; exit 3` failed with exit code 3:\nno torch")
    assert.error_matches(function() beside.run "echo median 0 ms" end,
      'did not print "median N ms", it printed:\nmedian 0')
  end)

  it("divides times of the same round, for each precision, and prints medians", function()
    local own = {fp32 = {0.5, 1, 2}, bf16 = {0.25, 0.25, 0.25}}
    local at = {fp32 = 0, bf16 = 0}
    local result = beside.measure {rounds = 3, precisions = {"fp32", "bf16"},
      command = "case {precision} in fp32) echo median 1000 ms;; bf16) echo median 500 ms;; esac",
      step = function(precision)
        at[precision] = at[precision] + 1
        return own[precision][at[precision]]
      end}
    assert.same({2, 1, 0.5}, result.ratios.fp32)
    local line = "beside %s: step %.1f ms, the other program %.1f ms: %.2f times as fast (3 rounds, %.2f to %.2f)"
    assert.equal(line:format("fp32", 1000, 1000, 1, 0.5, 2) .. "\n" .. line:format("bf16", 250, 500, 2, 2, 2),
      result:text())
  end)

  it("is printed by bench_nn.lua after its own lines, with either optimizer", function()
    for _, optimizer in ipairs {"sgd", "adamw"} do
      local out, code = spawn.host(spawn.quote(root .. "scripts/bench_nn.lua") .. " --model mlp --batch 2 --steps 1 " ..
        "--rounds 2 --precision both --optimizer " .. optimizer .. " --beside 'echo {precision} median 1 ms'")
      assert.equal(0, code, out)
      assert.matches("beside fp32: step .* the other program 1.0 ms: .* %(2 rounds", out)
      assert.matches("beside bf16: step .* the other program 1.0 ms: .* %(2 rounds", out)
    end
  end)

  it("stops bench_nn.lua if the program fails, and refuses to compare all networks", function()
    local script = spawn.quote(root .. "scripts/bench_nn.lua")
    local out, code = spawn.host(script .. " --model mlp --batch 2 --steps 1 --beside 'echo broken; exit 4'")
    assert.is_true(code ~= 0)
    assert.matches("failed with exit code 4:\nbroken", out)
    out, code = spawn.host(script .. " --beside 'echo median 1 ms' --model all")
    assert.is_true(code ~= 0)
    assert.matches("%-%-beside compares one network, not %-%-model all", out)
  end)
end)
