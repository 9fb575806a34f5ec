--- Compares settings, scripts and library versions over the ranks before a run; an error names the first difference
-- with both values (stage 7).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local precision = require "atomo.autograd.precision"
local structure = require "atomo.comm.structure"
local version = require "atomo.core.version"
local C = f.C

local M = {}

function M.text(v)
  if type(v) == "number" then return ("%.17g"):format(v) end
  if type(v) ~= "table" then return tostring(v) end
  local parts = {}
  for i, each in ipairs(v) do parts[i] = M.text(each) end
  return table.concat(parts, " ")
end

--- Raises on every rank, naming the first item that differs, unless all ranks have the same items. A value is a number,
--- string, boolean, nil, or a list of these. If all agree, each rank sends one small message. [collective]
---@param comm table
---@param what string  who compares: "train"
---@param items table[]  {{name, value}, ...}
---@param kind string?  word for an item, default "a setting"
---@param remedy string?  end of the error text
function M.check(comm, what, items, kind, remedy)
  what = ("%s: %s"):format(what, kind or "a setting")
  local lines = {}
  for i, item in ipairs(items) do lines[i] = ("%s = %s"):format(item[1], M.text(item[2])) end
  local whole = table.concat(lines, "\n")
  local ok, text = pcall(comm.check, comm, what, whole)
  if ok then return end
  if not text:find("differs: rank", 1, true) then error(text, 0) end -- another error: ranks may be missing
  local most = comm:allreduce(T.full({1}, #lines), "max"):item() -- every rank got the error, so all come here
  for i = 1, most do
    ok, text = pcall(comm.check, comm, what, lines[i] or "nothing")
    if not ok then error(text .. (remedy or ""), 0) end
  end
end

--- Returns name, length and checksum of the running script; "none" at the prompt and with -e.
function M.script()
  local path = type(arg) == "table" and arg[0]
  local file = path and io.open(path, "rb")
  if not file then return "none" end
  local text = file:read "*a" or ""
  file:close()
  return ("%s, %d bytes, crc %08x"):format(path:match "[^/]*$", #text, C.atomo_crc32(text, #text))
end

--- Items for check: library versions and the script. CPU and compiler may differ: results do not depend on them.
function M.program()
  local v = version.versions()
  return {{"version of atomo", v.atomo}, {"version of LuaJIT", v.luajit}, {"version of MPI", v.mpi},
    {"version of BLAS", v.blas:match "^%S+ %S+" or v.blas}, {"version of FFTW", v.fftw},
    {"version of oneDNN", v.onednn}, {"script", M.script()}}
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

--- Items that identify a data set: dtypes, shapes, and a checksum of up to 64 evenly spaced rows.
---@param tensors table[]  {name, tensor}; rows are counted by the first dimension
function M.data(tensors)
  local items = {}
  for i, entry in ipairs(tensors) do
    local t, sum = entry[2], 0
    local n = t:size(1)
    local every = math.max(1, math.floor(n / 64))
    for row = 1, n, every do
      sum = (sum * 31 + T.crc(t:narrow(1, row, 1))) % 2 ^ 32
    end
    items[i] = {entry[1], ("%s %s, crc %08x"):format(t:dtype(), T.shape_text(t), sum)}
  end
  return items
end

--- Items of a table with string keys. Values that are not a number, string, boolean or list, and keys in `skip`, are
--- left out.
function M.items(t, skip)
  local items = {}
  for _, key in ipairs(sorted_keys(t)) do
    local v = t[key]
    local plain = type(v) == "number" or type(v) == "string" or type(v) == "boolean" or
      type(v) == "table" and (type(v[1]) == "string" or type(v[1]) == "number")
    if plain and not (skip and skip[key]) then items[#items + 1] = {key, v} end
  end
  return items
end

--- Settings that may differ between ranks: file names and the number of threads.
local own = {log = true, csv = true, tensorboard = true, save = true, resume = true, data = true, text = true,
  init = true, threads = true, flight = true}

--- Items for check: the data of a loader that distributes it over the ranks. A loader of size 1 distributes nothing,
--- and its data may differ between ranks.
local function data_items(loader)
  if not loader or type(loader.identity) ~= "function" or (loader.size or 1) == 1 then return {} end
  return loader:identity()
end

--- Returns the items of the data of an atomo.train run on one rank; M.training has those of others.
function M.data_of_one(self)
  local items = {}
  for prefix, loader in pairs {["data: "] = self.train_loader, ["test data: "] = self.test_loader or nil} do
    if type(loader.identity) == "function" and (loader.size or 1) == 1 then
      for _, item in ipairs(loader:identity()) do items[#items + 1] = {prefix .. item[1], item[2]} end
    end
  end
  return items
end

local function add(items, prefix, more)
  for _, item in ipairs(more) do items[#items + 1] = {prefix .. item[1], item[2], structure = item.structure} end
end

--- Returns parameter -> name, empty if the model has no named_parameters.
local function names_of(model)
  local names = {}
  for _, entry in ipairs(model.named_parameters and model:named_parameters() or {}) do names[entry[2]] = entry[1] end
  return names
end

--- Items for check: all settings of an atomo.train run.
function M.training(self)
  local items, names = M.program(), names_of(self.model)
  add(items, "", {{"epochs", self.epochs}, {"max_steps", self.max_steps}, {"eval_every", self.eval_every},
    {"nonfinite", self.nonfinite}, {"check_replicas", self.check_every}, {"accumulate", self.accumulate},
    {"local_steps", self.local_steps},
    {"sharded_optimizer", (self.sharded_optimizer or self.optimizer.shards) and true or false},
    {"sharded_weights", self.sharded_optimizer == "bf16" and "bf16" or
      self.optimizer.shards and self.optimizer.shards.weights or "fp32"},
    {"clip_norm", self.clip_norm}, {"clip_value", self.clip_value},
    {"precision", precision.name(self.precision)},
    {"activations", precision.activations()},
    {"saves", self.save ~= nil}, {"resumes", self.resume ~= nil}, {"tests", self.test_loader ~= nil}})
  for _, key in ipairs {"steps", "batch", "seed", "length"} do items[#items + 1] = {key, self.train_loader[key]} end
  add(items, "data: ", data_items(self.train_loader))
  add(items, "test data: ", data_items(self.test_loader))
  items[#items + 1] = {"optimizer", self.optimizer.kind}
  items[#items + 1] = {"lr", self.schedule and self.schedule(0) or self.optimizer.lr}
  for i, group in ipairs(self.optimizer.groups) do add(items, ("group %d: "):format(i), M.items(group:options())) end
  if self.local_sgd then add(items, "outer ", M.items(self.local_sgd.optimizer.groups[1]:options())) end
  add(items, "", M.items(self.settings or {}, own))
  items[#items + 1] = {"number of parameters", #self.optimizer.params}
  for i, p in ipairs(self.optimizer.params) do
    items[#items + 1] = {"parameter " .. i, ("%s %s%s"):format(names[p] or "", T.shape_text(p),
      p.requires_grad and "" or ", frozen")}
  end
  add(items, "", structure.items("model", self.model))
  add(items, "", structure.items("loss", self.loss))
  return items
end

return M
