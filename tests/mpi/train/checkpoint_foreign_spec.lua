-- Files and folders given in place of a checkpoint or its folder are refused before the first step, on all ranks with
-- the same text, which says what they are. They stay unchanged.
local atomo = require "atomo"
local checkpoints = require "support.checkpoints"
local disk = require "atomo.train.checkpoint.disk"
local nn, world = atomo.nn, atomo.mpi.world

local steps

local function train(options)
  atomo.manual_seed(3)
  steps = 0
  local data = atomo.data.synthetic {train = 32, test = 8}
  local model = options.model or nn.Sequential {nn.Flatten(), nn.Linear(3072, 10)}
  local o = {model = model, epochs = 1, eval_every = 0, quiet = true, exchange = atomo.exchange {compress = "none"},
    optimizer = atomo.optim.adam {params = model:parameters(), lr = 0.01}, on_step = function() steps = steps + 1 end,
    data = atomo.data.loader {set = data.train, batch = 4, rank = world.rank, size = world.size}}
  for key, value in pairs(options) do o[key] = value end
  return atomo.train(o)
end

local function refused(pattern, options)
  local ok, text = pcall(train, options)
  assert.is_false(ok, "not refused: " .. pattern)
  assert.matches(pattern, text)
  assert.equal(0, steps)
  local all = world:allgatherv((tostring(text):gsub("^[^ ]+ ", ""))) -- without the source position
  for _, other in ipairs(all) do assert.equal(all[1], other) end
end

local function on_first(fn)
  world:barrier()
  if world.rank == 0 then fn() end
  world:barrier()
end

local function put(path, bytes)
  on_first(function()
    local file = assert(io.open(path, "wb"))
    file:write(bytes)
    file:close()
  end)
end

--- Returns names and bytes of all files in a folder, as text.
local function contents(dir)
  local list = {}
  for _, name in ipairs(disk.names(dir)) do
    local path = dir .. "/" .. name
    list[#list + 1] = name .. " " .. (disk.kind(path) == "folder" and contents(path) or checkpoints.bytes(path))
  end
  return table.concat(list, "\n")
end

describe("a folder to save to", function()
  teardown(checkpoints.remove_all)

  it("that holds another run is refused, unless the run continues it, however the folder is written", function()
    local dir, other = checkpoints.path(), checkpoints.path()
    train {save = dir, save_every = 1, keep = 2}
    train {save = other}
    world:barrier()
    local before = contents(dir)
    local last = checkpoints.named(dir):match "[^/]+$"
    local set = {width = 7} -- a setting that the run in `dir` did not have
    refused("holds checkpoints of another run, the newest is " .. last:gsub("%-", "%%-") .. ": .*differs in: width " ..
      "none %-> 7$", {save = dir, settings = set})
    refused("holds checkpoints of another run", {save = dir, settings = set, resume = other})
    refused("holds checkpoints of another run", {save = dir, settings = set, resume = checkpoints.named(other)})
    assert.equal(before, contents(dir))
    local folder, name = dir:match "^(.*)/([^/]+)$"
    local again = ("%s/./%s"):format(folder, name)
    for _, from in ipairs {"auto", dir, again, again .. "/" .. last, dir .. "/latest", again .. "/latest/"} do
      if from:sub(-1) ~= "/" then train {save = dir, resume = from, epochs = 1} end
    end
    assert.equal(before, contents(dir))
    train {save = dir, save_every = 1, keep = 2} -- the very same run, begun anew
    world:barrier()
    assert.equal(last, checkpoints.named(dir):match "[^/]+$")
  end)

  it("in which something else has a name of ours is refused", function()
    for _, case in ipairs {
      {"step%-7 is there already and is no checkpoint of this program", function(dir)
        disk.make(dir .. "/step-7")
        disk.write_text(dir .. "/step-7/weights.h5", "mine")
      end},
      {"step%-7 is there already and is no checkpoint", function(dir)
        disk.make(dir .. "/step-7")
        disk.make(dir .. "/step-7/manifest.safetensors")
        disk.make(dir .. "/step-7/rest")
      end},
      {"step%-7 is there already and is no checkpoint", function(dir) disk.write_text(dir .. "/step-7", "mine") end},
      {"latest is there already and is no file of this program", function(dir) disk.make(dir .. "/latest") end},
      {"best is there already and is no file of this program", function(dir)
        disk.write_text(dir .. "/best", "model 3")
      end},
    } do
      local dir = checkpoints.path()
      on_first(function()
        disk.make(dir)
        case[2](dir)
      end)
      for _, resume in ipairs {false, "auto"} do
        refused("checkpoint: rank 0: .*/" .. case[1], {save = dir, resume = resume or nil})
      end
      assert.equal(1, #disk.names(dir))
    end
  end)

  it("that has no room for a checkpoint is refused; the probe leaves no file", function()
    local dir = checkpoints.path()
    on_first(function() disk.make(dir) end)
    local reserve, asked = disk.reserve, nil
    disk.reserve = function(path, bytes) -- as on a disk that is too small
      asked = bytes
      if bytes > 0 then return reserve(path, 1e18) end
      return reserve(path, bytes)
    end
    local ok, text = pcall(refused, "checkpoint: rank 0: cannot write .*, where this rank's part of a checkpoint " ..
      "takes 369 kB or more: no room for 1000000000000000000 bytes in .*: ", {save = dir})
    disk.reserve = reserve
    assert(ok, text)
    local least = world.rank == 0 and 3 * 4 * 30730 or 0 -- the model, and two moments of Adam in padded blocks
    assert.is_true(asked >= least and asked <= 1.001 * least, asked)
    world:barrier()
    assert.same({}, disk.names(dir))
  end)
end)

describe("a file to resume from", function()
  teardown(checkpoints.remove_all)

  for _, case in ipairs {{"a text file", "epoch 3\nloss 0.5\n"}, {"an empty file", ""},
    {"a zip archive %(a file of PyTorch, or %.npz%)", "PK\3\4" .. ("\0"):rep(60)}, {"a pickle", "\128\2}q\0."},
    {"a file of NumPy", "\147NUMPY\1\0"}, {"a JSON file", '{"step": 3}'}, {"an HDF5 file", "\137HDF\r\n"}} do
    local what, bytes = case[1], case[2]
    it("that is " .. what:gsub("%%", "") .. " is refused", function()
      local path = checkpoints.path()
      put(path, bytes)
      refused("checkpoint: rank 0: .* is " .. what .. "[^,]*, no checkpoint: expected a folder that was saved to",
        {resume = path})
    end)
  end

  it("that is one file of a checkpoint is refused, and its folder named", function()
    local dir = checkpoints.path()
    train {save = dir}
    local folder = checkpoints.named(dir)
    for _, name in ipairs {"model.safetensors", "manifest", "rank-0.safetensors"} do
      refused("is one file of a checkpoint: resume from its folder, .*/" .. folder:match("[^/]+$"):gsub("%-", "%%-"),
        {resume = folder .. "/" .. name})
    end
  end)

  it("that is a folder without checkpoints is refused", function()
    local dir = checkpoints.path()
    on_first(function() disk.make(dir) end)
    refused("holds no complete checkpoint %(folders step%-N that a run has saved%)", {resume = dir})
  end)
end)

describe("a manifest that disagrees", function()
  teardown(checkpoints.remove_all)

  --- Changes the manifest of a new checkpoint, with a right checksum; returns the checkpoint's folder.
  local function changed(change)
    local manifest = require "atomo.train.checkpoint.manifest"
    local dir = checkpoints.path()
    train {save = dir}
    local folder = checkpoints.named(dir)
    on_first(function()
      local body = manifest.read(folder)
      change(body)
      manifest.write(folder, body)
    end)
    return folder
  end

  it("with the files is refused", function()
    local last = ("rank-%d"):format(world.size - 1)
    for _, case in ipairs {
      {"model%.safetensors has %d+ bytes, the manifest says 12", function(entry) entry.bytes = 12 end, "model"},
      {"model%.safetensors is damaged: its checksum is %x+, the manifest says 00000007",
        function(entry) entry.crc32 = "00000007" end, "model"},
      {"rank %d: .*" .. last:gsub("%-", "%%-") .. "%.safetensors: its contents have checksum %x+, the manifest says " ..
        "00000009", function(entry) entry.contents = "00000009" end, last},
    } do
      local folder = changed(function(body)
        for _, entry in ipairs(body.files) do
          if entry.name == case[3] .. ".safetensors" then case[2](entry) end
        end
      end)
      refused(case[1], {resume = folder, epochs = 2})
    end
  end)

  it("with the folder's name, or that lacks a rank's file or the position, is refused", function()
    refused("step%-%d+: its manifest is that of step%-77$", {resume = changed(function(body) body.step = 77 end)})
    for _, name in ipairs {"optimizer", ("rank-%d"):format(world.size - 1)} do
      local folder = changed(function(body)
        for i = #body.files, 1, -1 do
          if body.files[i].name == name .. ".safetensors" then table.remove(body.files, i) end
        end
      end)
      refused("the manifest of .* names no " .. name:gsub("%-", "%%-"), {resume = folder, epochs = 2})
    end
    refused("does not say its position in the run", {resume = changed(function(body) body.progress = {} end)})
  end)
end)

describe("the checkpoint of another model", function()
  teardown(checkpoints.remove_all)

  it("is refused with both names and the differences", function()
    local dir = checkpoints.path()
    train {save = dir, settings = {model = "linear"}}
    local two = nn.Sequential {nn.Flatten(), nn.Linear(3072, 4), nn.Linear(4, 10)}
    refused("is of another model: linear with 2 tensors there, Sequential with 4 here; only here: 2%.bias, " ..
      "2%.weight; wrong shape: 1%.bias is %[10%] there, %[4%] here, 1%.weight is %[10,3072%] there, %[4,3072%] here$",
      {model = two, resume = dir})
    local same = nn.Sequential {nn.Flatten(), nn.Linear(3072, 10, {bias = false})}
    refused("linear with 2 tensors there, wide with 1 here; only there: 1%.bias$",
      {model = same, resume = dir, settings = {model = "wide"}})
  end)
end)
