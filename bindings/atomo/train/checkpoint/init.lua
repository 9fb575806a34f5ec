--- Checkpoints: a resumed run is bit-identical to an uninterrupted one. A checkpoint is a folder
-- DIR/step-N, complete or absent (step_folders.lua), with a manifest of its files. Ranks write their files in parallel;
-- when all have, one rank renames the folder. An error on any rank is raised on all with the same text; earlier
-- checkpoints are not changed.
local brief = require "atomo.core.brief"
local bags = require "atomo.train.checkpoint.bag"
local contents = require "atomo.train.checkpoint.contents"
local disk = require "atomo.train.checkpoint.disk"
local file = require "atomo.train.checkpoint.file"
local foreign = require "atomo.train.checkpoint.foreign"
local step_folders = require "atomo.train.checkpoint.step_folders"
local identity = require "atomo.train.checkpoint.identity"
local layer_options = require "atomo.train.checkpoint.layer_options"
local modes = require "atomo.train.checkpoint.modes"
local inputs = require "atomo.train.checkpoint.inputs"
local json = require "atomo.core.json"
local legacy = require "atomo.train.checkpoint.legacy"
local manifest = require "atomo.train.checkpoint.manifest"
local together = require "atomo.train.checkpoint.together"
local raise = require("atomo.ffi").raise

local M = {write = file.write, read = file.read}

--- Returns two texts: compressor and topology; and these with all other options on which compressor state depends.
local function compressor_text(run)
  local ex = run.exchange
  local text = ("%s, topology %s"):format(tostring(ex.compressor), ex.topology)
  local o = ex.settings
  return text, ("%s, %s %s %s %s"):format(text, o.min_size, o.fuse_small, tostring(o.inter_node), tostring(o.downlink))
end

local function own_name(rank) return ("rank-%d"):format(rank) end

--- Writes a bag into a checkpoint's folder; returns its entry for the manifest.
local function write(folder, name, bag)
  name = name .. ".safetensors"
  return manifest.entry(folder, name, bag:write(folder .. "/" .. name))
end

--- Writes this rank's share of the files; returns their entries as text.
local function write_files(folder, comm, shared, own)
  local list = {}
  for _, name in ipairs(comm.rank == 0 and {"model", "optimizer", "state"} or {}) do
    if not shared[name]:is_empty() then list[#list + 1] = write(folder, name, shared[name]) end
  end
  list[#list + 1] = write(folder, own_name(comm.rank), own)
  return json.encode(list)
end

--- Returns the run's settings if JSON can hold them; they serve --repeat, no resumed run reads them.
local function settings_of(run)
  return pcall(json.encode, run.settings) and run.settings or nil
end

local function body_of(run, texts)
  local files = {}
  for _, text in ipairs(texts) do
    for _, entry in ipairs(json.decode(text)) do files[#files + 1] = entry end
  end
  local text, key = compressor_text(run)
  return {step = run.step, epoch = run.place.epoch, ranks = run.comm.size, files = files,
    model = contents.model_name(run), progress = contents.progress(run), identity = run.identity,
    settings = settings_of(run), inputs = inputs(run.train_loader, rawget(run.data, "names")), coder = text,
    coder_key = key,
    choice = run.exchange.choice and run.exchange:choice() or nil}
end

--- Saves a run as checkpoint DIR/step-N, N its step, and makes `latest` name it. [collective]
---@param dir string
---@param run table   state of atomo.train
---@return string name  "step-N"
function M.save(dir, run)
  local comm, name = run.comm, step_folders.name_of(run.step)
  local folder = step_folders.partial(dir, name)
  local function on_first(fn)
    return function() if comm.rank == 0 then fn() end end
  end
  local give_up = on_first(function() disk.remove_folder(folder) end)
  together.run(comm, on_first(function() step_folders.begin(dir, name) end), give_up)
  local shared, own = contents.gather(run)
  local entries = together.run(comm, function() return write_files(folder, comm, shared, own) end, give_up)
  shared.optimizer:free() -- views, and what was gathered from the ranks of a sharded optimizer
  local body = body_of(run, comm:allgatherv(entries))
  together.run(comm, on_first(function() step_folders.commit(dir, name, body) end), give_up)
  return name
end

--- Makes `best` name a checkpoint with test result `text`. [collective]
function M.point_best(dir, comm, name, text)
  together.run(comm, function()
    if comm.rank == 0 then step_folders.point(dir, "best", name, text) end
  end)
end

--- Removes all checkpoints except the `keep` newest and those that latest and best name. [collective]
function M.prune(dir, comm, keep)
  together.run(comm, function()
    if comm.rank == 0 then step_folders.prune(dir, keep) end
  end)
end

-- ---- loading -----------------------------------------------------------------------------------------------------

--- Interprets option resume: {dir=, name=} for one checkpoint, {dir=} for the newest, {file=} for a file of an earlier
--- version. [local]
local function meaning(path, save)
  if path == "auto" then
    if not save then raise "checkpoint: resume = 'auto' needs save, the folder whose newest checkpoint it resumes" end
    return {dir = save}
  end
  local kind, dir, name = disk.kind(path), step_folders.split(path)
  if kind == "file" then
    local folder, pointer = path:match "^(.-)/?(%a+)$"
    local pointed = (pointer == "latest" or pointer == "best") and step_folders.pointed(folder, pointer)
    if pointed then return {dir = folder, name = pointed} end
    foreign.check_file(path)
    return {file = path}
  elseif kind ~= "folder" then
    raise(("checkpoint: %s is not there: expected a folder of checkpoints, one of them, or auto"):format(path))
  end
  return name and {dir = dir, name = name} or {dir = path}
end

--- Finds the checkpoint to resume from: its manifest and folder, nil if "auto" found none. [collective]
local function find(path, run, say)
  local comm = run.comm
  local m = together.run(comm, function() return meaning(path, run.save) end)
  comm:check("train: resume", m.file and "a file" or m.name or "the newest checkpoint")
  if m.file then return m end
  if m.name then
    local body, why = step_folders.inspect(comm, m.dir, m.name)
    if not body then raise(("checkpoint: %s/%s: %s"):format(m.dir, m.name, why)) end
    return {body = body, folder = m.dir .. "/" .. m.name}
  end
  local name, body, passed = step_folders.newest(comm, m.dir)
  for _, line in ipairs(passed) do say(line) end
  if name then return {body = body, folder = m.dir .. "/" .. name} end
  if path ~= "auto" then
    raise(("checkpoint: %s holds no complete checkpoint (folders step-N that a run has saved)%s"):format(m.dir,
      passed[1] and ": " .. passed[1] or ""))
  end
  say(("nothing to resume in %s: a fresh start"):format(m.dir))
end

--- Returns a function that reads a file of a manifest by name, as a bag. A checkpoint without the user's objects has no
--- file for them; for any other file that the manifest lacks, the function raises.
local function opener(body, folder)
  local entries = {}
  for _, entry in ipairs(body.files) do entries[entry.name] = entry end
  return function(name)
    name = name .. ".safetensors"
    if not entries[name] and name == "state.safetensors" then return bags.new() end
    if not entries[name] then raise(("checkpoint: the manifest of %s names no %s"):format(folder, name)) end
    local bag, checksum = bags.read(folder .. "/" .. name)
    if checksum ~= entries[name].contents then
      raise(("checkpoint: %s/%s: its contents have checksum %s, the manifest says %s"):format(folder, name,
        brief(checksum), entries[name].contents))
    end
    return bag
  end
end

local function anew_on_ranks(run, ranks, say)
  say(("the state of each of %d ranks (compressor, local optimizer) is reset on %d ranks"):format(ranks, run.comm.size))
end

local function anew_for_coder(run, saved, say)
  local text = compressor_text(run)
  say(saved ~= text and ("the memory of %s is reset for %s"):format(saved, text) or
    ("the memory of %s is reset: other options now decide what it encodes"):format(saved))
end

--- Returns the learning rate that this run gives its optimizer in place of the saved one; nil if it gives no other.
local function new_rate(saved, run)
  local lr = run.identity.lr
  return not run.schedule and saved.lr and saved.lr ~= lr and tonumber(lr) or nil
end

--- Begins a new round of local SGD if the open one of the checkpoint is not continued: its steps are lost, since the
--- model has the parameters of its beginning.
local function drop_round(run, say)
  if run.in_round == 0 then return end
  say(("%d steps of a round of local steps are lost: the round is not continued"):format(run.in_round))
  run.in_round = 0
end

--- Loads a checkpoint into the run. [collective]
local function load_checkpoint(found, run, say, compare)
  local comm, body, folder = run.comm, found.body, found.folder
  local open, values = opener(body, folder), contents.read_progress(body.progress, folder)
  local same_ranks = body.ranks == comm.size
  local differs = identity.differences(body.identity or {}, run.identity,
    {ranks = true, steps = true, ["data: size"] = not same_ranks, ["test data: size"] = not same_ranks})
  local own = together.run(comm, function()
    contents.load_shared(run, open, folder, say, body.model or (body.identity or {}).model)
    return same_ranks and open(own_name(comm.rank)) or nil
  end)
  if differs then say("resumed with other settings than it was saved with: " .. differs) end
  if body.choice and run.exchange.restore then run.exchange:restore(body.choice) end
  contents.restore_progress(run, values)
  if not (same_ranks and run.local_sgd) then drop_round(run, say) end
  modes.restore(run, values.modes, values.modes_at_start, say)
  layer_options.restore(run, values.layer_options)
  compare()
  local _, key = compressor_text(run)
  if not same_ranks then
    if values.remembers then anew_on_ranks(run, body.ranks, say) end
  elseif values.remembers and key ~= body.coder_key then
    anew_for_coder(run, body.coder, say)
  end
  together.run(comm, function()
    contents.load_user_state(run, open "state", own, folder, say)
    if own then contents.load_rank(run, own, values, key == body.coder_key, folder) end
  end)
  run.optimizer.lr = new_rate(body.identity or {}, run) or run.optimizer.lr
  if own then own:free() end
  return body.ranks, values
end

--- Loads a checkpoint into a run, including its step and position. [collective]
---@param path string   DIR, DIR/step-N, DIR/latest, DIR/best, "auto", or a file of an earlier version
---@param run table
---@param say fun(text: string)  gets lines about state that is reset, and about different settings
---@param compare fun()          called when the state that all ranks share has been loaded
---@return string? from    what was loaded; nil: "auto" found nothing
---@return integer? ranks  number of ranks of the run that saved it, nil if unknown
---@return table? values   its position in the manifest; nil for a file of an earlier version
function M.load(path, run, say, compare)
  local found = find(path, run, say)
  if not found then return nil end
  if found.body then return found.folder, load_checkpoint(found, run, say, compare) end
  local ranks = legacy.load(found.file, run, function() return (compressor_text(run)) end, {
    ranks = function(n) anew_on_ranks(run, n, say) end,
    coder = function(text) anew_for_coder(run, text, say) end,
  }, compare)
  return found.file, ranks
end

return M
