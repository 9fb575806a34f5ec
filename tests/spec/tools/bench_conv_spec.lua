-- scripts/bench_conv.lua as a user runs it: Winograd's error on the layers of a network stays within the bound that
-- docs/guide.md states (5e-6 of the largest element), and --conv of train_cifar.lua says what computes.
local root = require "support.root"
local spawn = require "support.spawn"
local function script(name) return spawn.quote(root .. "scripts/" .. name) end

describe("bench_conv.lua", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end

  for _, model in ipairs {"resnet20", "resnet18"} do
    it("measures the error on the layers of " .. model, function()
      local out, code = spawn.host(script "bench_conv.lua" .. " --batch 2 --model " .. model)
      assert.equal(0, code, out)
      local worst, rows = 0, 0
      for error_text in out:gmatch "winograd: largest (%S+) norm" do
        rows, worst = rows + 1, math.max(worst, tonumber(error_text))
      end
      assert.equal(model == "resnet20" and 9 or 12, rows)
      assert.is_true(worst > 0 and worst < 5e-6, ("%g"):format(worst))
      assert.equal(worst, tonumber(out:match "worst of %d layers: winograd (%S+) of the largest"))
    end)
  end

  it("reports that there is nothing to measure", function()
    local out, code = spawn.host(script "bench_conv.lua" .. " --model mlp")
    assert.equal(0, code)
    assert.matches("mlp has no convolution that Winograd could do", out)
  end)
end)

describe("train_cifar.lua --conv", function()
  if not spawn.possible() then return pending "runs in the host program, not under mpirun" end
  local train = script "train_cifar.lua" .. " --model lenet --train-images 64 --batch 8 --max-steps 2 --eval-every 0"

  it("chooses the engine of convolutions, and prints it", function()
    local out, code = spawn.host(train .. " --conv direct")
    assert.equal(0, code, out)
    assert.matches("convolutions: direct", out)
    assert.matches("%-%-conv direct", out)
  end)

  it("refuses unknown options", function()
    local out, code = spawn.host(train .. " --conv fast")
    assert.equal(2, code)
    assert.matches("conv", out)
  end)
end)
