-- A run that is resumed on another number of ranks: position and schedule follow the number of images seen; the state
-- of ranks is reset, with a notice.
-- test: slow
local spawn = require "support.spawn"
local checkpoints = require "support.checkpoints"

if not spawn.possible() then
  return pending "resume_ranks_spec: starts jobs of its own, not under mpirun"
end

local job = [[
local atomo = require "atomo"
local world, path, epochs, resume = atomo.mpi.world, arg[1], tonumber(arg[2]), arg[3] == "resume"
atomo.manual_seed(3)
local data = atomo.data.synthetic {train = 64, test = 8}
local model = atomo.nn.Sequential {atomo.nn.Flatten(), atomo.nn.Linear(3072, 10)}
local loader = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size, mean = data.mean,
  std = data.std}
local schedule = atomo.schedule.cosine {lr = 0.01, steps = 3 * loader.steps}
local last, rounds = nil, {}
local info = atomo.train {model = model, data = loader, eval_every = 0, epochs = epochs, schedule = schedule,
  optimizer = atomo.optim.sgd {params = model:parameters(), lr = 0.01, momentum = 0.9},
  exchange = atomo.exchange {compress = arg[4] or "topk:k=50,ef=true", min_size = tonumber(arg[6])}, save = path,
  resume = resume and path or nil, max_steps = tonumber(arg[5]), local_steps = tonumber(arg[7]),
  on_step = function(i)
    last = i
    if i.of_all then rounds[#rounds + 1] = i.step end
  end}
if world.rank > 0 then return end
print(("END step %d of %d lr %.6f"):format(info.step, 3 * loader.steps, last.lr))
print("ROUNDS END " .. table.concat(rounds, " "))
]]

local function count_of(n) return n == 1 and "1 rank" or n .. " ranks" end

describe("a checkpoint", function()
  local path, remove, saved
  before_each(function()
    path, remove = spawn.file(job)
    saved = checkpoints.path()
  end)
  after_each(function()
    checkpoints.remove(saved)
    remove()
  end)

  local function run(ranks, epochs, resume, compress, steps, min_size, local_steps)
    return spawn.ranks(ranks, ("%s %s %d %s %s %s %s %s"):format(path, saved, epochs, resume or "new",
      compress or "topk:k=50,ef=true", steps or "all", min_size or "1024", local_steps or "0"))
  end

  for _, case in ipairs {{2, 4}, {4, 2}, {2, 1}, {1, 2}} do
    local from, to = unpack(case)
    it(("of %d ranks resumes on %d: the schedule ends at its last step"):format(from, to), function()
      local out, code = run(from, 2)
      assert.equal(0, code, out)
      out, code = run(to, 3, "resume")
      assert.equal(0, code, out)
      local steps = 64 / 4 / to
      assert.matches(("END step %d of %d lr "):format(3 * steps, 3 * steps), out)
      assert.is_true(tonumber(out:match "lr ([%d.]+)\n") > 0) -- the rate of the last step, within the schedule
      assert.matches(("saved by %s, resumed on %d: step %d there is step %d here"):format(count_of(from), to,
        2 * 64 / 4 / from, 2 * steps), out)
      assert.matches("resumed with other settings than it was saved with: epochs 2 %-> 3\n", out) -- and the same data
      assert.matches(("the state of each of %d ranks .* is reset on %d"):format(from, to), out)
    end)
  end

  for _, case in ipairs {{2, 4, 11, 6}, {4, 2, 5, 10}, {2, 1, 3, 6}} do -- 64 / 4 / ranks steps an epoch
    local from, to, stop, here_then = unpack(case)
    it(("made within an epoch of %d ranks resumes on %d: by the images seen"):format(from, to), function()
      local out, code = run(from, 3, nil, nil, stop)
      assert.equal(0, code, out)
      out, code = run(to, 3, "resume")
      assert.equal(0, code, out)
      assert.matches(("saved by %s, resumed on %d: step %d there is step %d here"):format(count_of(from), to, stop,
        here_then), out)
      local steps = 64 / 4 / to
      assert.matches(("END step %d of %d lr "):format(3 * steps, 3 * steps), out)
    end)
  end

  it("made within a round of local steps begins a whole round on another number of ranks", function()
    local out, code = run(2, 2, nil, nil, 2, nil, 3)
    assert.equal(0, code, out)
    out, code = run(1, 2, "resume", nil, nil, nil, 3)
    assert.equal(0, code, out)
    assert.matches("saved by 2 ranks, resumed on 1: step 2 there is step 4 here", out)
    assert.matches("ROUNDS END 7 10 13 16 19 22 25 28 31 32\n", out) -- an epoch of 16 steps ends its round
  end)

  it("of another compressor reports that its memory is reset", function()
    local out, code = run(2, 2)
    assert.equal(0, code, out)
    out, code = run(2, 3, "resume", "topk:k=60,ef=true")
    assert.equal(0, code, out)
    assert.matches("the memory of topk:k=50,ef=true[^\n]* is reset for topk:k=60", out)
  end)

  it("of an exchange that encoded other tensors reports that its memory is reset", function()
    local out, code = run(2, 2)
    assert.equal(0, code, out)
    out, code = run(2, 3, "resume", nil, nil, 100000) -- every tensor is small, and travels dense
    assert.equal(0, code, out)
    assert.matches("is reset: other options now decide what it encodes", out)
  end)

  it("is refused if a rank's file is missing, and all ranks end", function()
    local out, code = run(2, 2)
    assert.equal(0, code, out)
    os.remove(checkpoints.named(saved) .. "/rank-1.safetensors")
    saved = checkpoints.named(saved)
    out, code = run(2, 3, "resume")
    saved = saved:match "^(.*)/"
    assert.equal(1, code, out)
    assert.matches("step%-%d+: rank%-1%.safetensors is missing", out)
  end)
end)
