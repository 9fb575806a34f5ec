--- The pages of the reference: which module or class each describes, and what its examples begin with.
local function class_of(object) return getmetatable(object) end

--- Returns {{file =, title =, text =, prelude =, parts = {{prefix =, holder =, rooms =}}}}. A prefix ends in "." for
--- the functions of a module, in ":" for methods. rooms: folders and files of bindings/atomo that define the names.
---@param atomo table  the module
---@return table[]
return function(atomo)
  local p = atomo.param(atomo.ones(1))
  local list = {}
  local function page(file, title, text, prelude, parts)
    list[#list + 1] = {file = file, title = title, text = text, prelude = prelude, parts = parts}
  end
  local function part(prefix, holder, rooms) return {prefix = prefix, holder = holder, rooms = rooms} end

  page("atomo", "atomo", "Functions of the module.", nil,
    {part("atomo.", atomo, "tensor autograd compress exchange train tools core init.lua")})

  page("tensor", "Tensors", "Methods of a tensor `t`. A method whose name ends in `_` changes `t`. Dimensions and " ..
    "indices count from 1, negative dimensions from the end. Tensors that require a gradient are f32.",
    "local t = atomo.tensor {{1, 2}, {3, 4}}", {part("Tensor:", atomo.Tensor, "tensor autograd nn/functional")})

  page("functional", "atomo.F", "Layers as functions. Images are [N,H,W,C], labels i32 from 0.",
    "local x = atomo.randn(2, 8, 8, 3) -- [N,H,W,C]", {part("F.", atomo.F, "nn/functional autograd")})

  page("nn", "atomo.nn", "Layers, initial values, and the methods of all modules. A layer `nn.X(...)` is called " ..
    "with its input.", [[
local x = atomo.randn(2, 8, 8, 3) -- [N,H,W,C]
local m = nn.Sequential {nn.Flatten(), nn.Linear(192, 10)}]],
    {part("nn.", atomo.nn, "nn"), part("nn.init.", atomo.nn.init, "nn"), part("Module:", atomo.nn.Module, "nn")})

  page("optim", "atomo.optim and atomo.schedule", "Optimizers, averages of weights, and learning rates.", [[
local schedule, m = atomo.schedule, nn.Sequential {nn.Linear(4, 2), nn.ReLU()}
local optimizer = atomo.optim.sgd {params = m:parameters(), lr = 0.1}
local ema = atomo.optim.ema {params = m:parameters(), decay = 0.9}
m(atomo.ones(3, 4)):square():sum():backward()]], {
    part("optim.", atomo.optim, "optim"),
    part("Optimizer:", class_of(atomo.optim.sgd {params = {p}, lr = 1}), "optim"),
    part("EMA:", class_of(atomo.optim.ema {params = {p}, decay = 0.9}), "optim"),
    part("schedule.", atomo.schedule, "optim"),
  })

  page("data", "atomo.data and atomo.text", "Readers, data sets and loaders.", [[
local set = atomo.data.synthetic({train = 8, test = 8}).train
local loader = atomo.data.loader {set = set, batch = 4}
local vocabulary = atomo.text.train_vocabulary("to be or not to be", 260)]], {part("data.", atomo.data, "data"),
    part("Loader:", atomo.data.loader.Loader, "data"), part("text.", atomo.text, "data"),
    part("Vocabulary:", class_of(atomo.text.train_vocabulary("", 257)), "data")})

  page("mpi", "atomo.mpi", "A communicator has the fields rank, size, local_rank, local_size and hostname. Ranks " ..
    "count from 0. All ranks of a communicator must call its methods, except send, recv, isend and irecv.",
    "local world = atomo.mpi.world\nlocal t = atomo.ones(2)", {part("mpi.", atomo.mpi, "comm"),
    part("Communicator:", atomo.mpi.Comm, "comm"), part("Request:", atomo.mpi.Request, "comm")})

  page("compressor", "Compressors", "Methods of `atomo.compressor(spec)`. Sizes of messages are in bytes.",
    'local c, g = atomo.compressor "svd:ratio=8", atomo.randn(16, 8)',
    {part("Compressor:", class_of(atomo.compressor "svd:ratio=8"), "compress")})

  page("exchange", "Exchange", "Methods of `atomo.exchange{...}`. Every rank must call them in the same order.",
    "local ex, g = atomo.exchange {}, atomo.randn(16, 8)",
    {part("Exchange:", require "atomo.exchange.exchange", "exchange")})

  page("tools", "atomo.cli, log, profile and torch", "Command lines, logs, profiles, and files of PyTorch.", [[
local m = nn.Sequential {nn.Linear(4, 2)}
local options = {{"batch", "int", 32, "images"}}
local opts = atomo.cli.parse({name = "s", options = options}, {"--batch", "64"})]], {
    part("atomo.cli.", atomo.cli, "tools"), part("atomo.log.", atomo.log, "core"),
    part("atomo.profile.", atomo.profile, "tools"), part("atomo.torch.", atomo.torch, "nn/torch"),
  })
  return list
end
