-- Local SGD weighs losses by their counts: a step without exchange reports the mean over this rank's counted labels,
-- the end of a round the mean over all ranks and steps of the round, an epoch the mean over all; log and progress line,
-- too. The learning rate is 0, so that every mean is known.
local atomo = require "atomo"
local log = atomo.log
local F, nn, world = atomo.F, atomo.nn, atomo.mpi.world

local WIDTH, CLASSES, LENGTH, STEPS, ROUND = 3, 4, 5, 6, 3

local function model_of()
  atomo.manual_seed(9)
  return nn.Linear(WIDTH, CLASSES)
end

--- Returns a rank's batch in a step: two sequences, with a number of ignored labels that depends on rank and step.
local function batch_of(step, rank)
  atomo.manual_seed(100 * step + rank)
  local x, y = atomo.randn(2, LENGTH, WIDTH), atomo.zeros(2, LENGTH, "i32")
  local ignored = (3 * step + 2 * rank) % (LENGTH + 1) -- if all are ignored, no label counts
  for i = 1, 2 do
    for j = 1, LENGTH do y:set(i, j, j <= ignored and -1 or (i + j + step) % CLASSES) end
  end
  return {x = x, y = y, n = 2, total = 2 * world.size}
end

local loader = {steps = STEPS, epoch = function()
  local step = 0
  return function()
    step = step + 1
    return step <= STEPS and batch_of(step, world.rank) or nil
  end
end}

local function loss(logits, y) return F.cross_entropy(logits, y, {ignore_index = -1}) end

--- Returns the mean loss over these steps and ranks, as one sum over all labels.
local function mean(first, last, ranks)
  local model, sum, count = model_of(), 0, 0
  for step = first, last do
    for _, rank in ipairs(ranks) do
      local b = batch_of(step, rank)
      local each = F.cross_entropy(model(b.x), b.y, {ignore_index = -1, reduction = "none"}):reshape(-1)
      local labels = b.y:reshape(-1)
      for k = 1, labels:numel() do
        if labels:get(k) ~= -1 then sum, count = sum + each:get(k), count + 1 end
      end
    end
  end
  return sum / count, count
end

local everyone = {}
for r = 1, world.size do everyone[r] = r - 1 end

local function train(more)
  local model, steps = model_of(), {}
  local o = {model = model, data = {train = loader, test = loader}, loss = loss, quiet = true, local_steps = ROUND,
    exchange = atomo.exchange {}, optimizer = atomo.optim.sgd {params = model:parameters(), lr = 1},
    schedule = function() return 0 end, outer = {lr = 0, momentum = 0}, on_step = function(i) steps[#steps + 1] = i end}
  for key, value in pairs(more or {}) do o[key] = value end
  return atomo.train(o), steps
end

local function near(expected, got, what)
  if expected ~= expected then return assert.is_true(got ~= got, what) end
  assert.is_true(math.abs(expected - got) <= 2e-6 * math.abs(expected), ("%s: %.7f, expected %.7f"):format(what, got,
    expected))
end

describe("local steps with ignored labels", function()
  it("say means over what they count", function()
    local info, steps = train()
    assert.equal(STEPS, #steps)
    for step, s in ipairs(steps) do
      local ends = step % ROUND == 0
      local expected, count = mean(ends and step - ROUND + 1 or step, step, ends and everyone or {world.rank})
      near(expected, s.loss, "step " .. step)
      assert.equal(count, s.count)
    end
    local whole = mean(1, STEPS, everyone)
    near(whole, info.loss, "the epoch")
    near(whole, info.test_loss, "the test set")
  end)

  it("log them", function()
    local path = os.tmpname()
    local ok, why = pcall(function()
      train {log = path}
      if world.rank > 0 then return end
      local losses = {}
      for _, event in ipairs((log.read(path))) do
        if event.event == "step" then losses[#losses + 1] = event.loss end
        if event.event == "epoch" then near(mean(1, STEPS, everyone), event.loss, "the epoch's event") end
      end
      for number = 1, 2 do
        near(mean(ROUND * number - ROUND + 1, ROUND * number, everyone), losses[ROUND * number], "round " .. number)
      end
    end)
    os.remove(path)
    assert.is_true(ok, tostring(why))
  end)

  it("are shown as the round's mean over all ranks, each label once", function()
    local report = require "atomo.train.report" {comm = world, quiet = true, epochs = 1, steps = STEPS}
    local _, steps = train()
    for _, s in ipairs(steps) do report:step(s) end
    if world.rank > 0 then return end
    local shown, accuracy = report:means()
    near(mean(1, STEPS, everyone), shown, "the line")
    assert.is_true(accuracy >= 0 and accuracy <= 1)
    report:step(steps[1])
    local _, all = mean(1, STEPS, everyone)
    local own, count = mean(1, 1, {0})
    local expected = (shown * all + (count > 0 and own * count or 0)) / (all + count)
    near(expected, (report:means()), "with a step of the next round")
  end)
end)
