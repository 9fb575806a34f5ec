--- What to write instead, for errors of Lua itself: they name what was called and where, and know nothing of tensors
-- and models. The host appends it to the text of an error that ends the program or reaches the prompt
-- (runtime/host/exit.c).

-- Methods of PyTorch, Torch and mpi4py that are nil here: models may have fields of these names, so that reading them
-- is no error (nn/instead.lua has the others).
local methods = {
  append = "write m:add(layer)",
  children = "write m:named_children(), a list of {name, module}",
  clearState = "write nothing: a model holds no state of the last batch",
  compile = "write nothing: loops in Lua are compiled as they run",
  cpu = "write nothing: all is in main memory",
  device = "write nothing: all is in main memory",
  double = "write nothing: models are f32",
  float = "write nothing: models are f32",
  get = "write m[i] for layer i of a Sequential, set.images and set.labels for a data set",
  half = 'write atomo.set_precision "bf16", or t:to("f16") of a tensor',
  modules = "write m:named_modules(), a list of {name, module}",
  reset = "make it again",
  save = "write atomo.torch.save(path, m), or t:save_npy(path)",
  share_memory = "write nothing: each rank has its own memory",
  size = "write t:size(dim) of a tensor, set.n of a data set, m:num_parameters() of a model",
  summary = "write print(m), m:num_parameters()",
  type = "write nothing: models are f32; t:dtype() of a tensor",
}

local NAME = "atomo"
local LOAD = 'write local %s = require "' .. NAME .. '" first'

local globals = {
  atomo = LOAD:format(NAME),
  comm = "write local world = atomo.mpi.world first",
  dist = "write local world = atomo.mpi.world first",
  F = "write local F = atomo.F first",
  hvd = "write local world = atomo.mpi.world first",
  MPI = "write local world = atomo.mpi.world first",
  nn = "write local nn = atomo.nn first",
  np = LOAD:format(NAME) .. ", and atomo.zeros(2, 3) for np.zeros((2, 3))",
  numpy = LOAD:format(NAME) .. ", and atomo.zeros(2, 3) for numpy.zeros((2, 3))",
  optim = "write local optim = atomo.optim first",
  torch = LOAD:format "torch",
  world = "write local world = atomo.mpi.world first",
}

local METHOD = "it is a method: call it, as in x:%s()"

-- {pattern, function of its captures that returns the remedy or nil}, the first that fits
local rules = {
  {"attempt to call %a+ '([%w_]+)' %(a (%a+) value%)", function(name, kind)
    if kind == "nil" then return methods[name] end
    return ("it is a %s: write x.%s, without parentheses"):format(kind, name)
  end},
  {"attempt to index global '([%w_]+)' %(a nil value%)", function(name) return globals[name] end},
  {"attempt to index field 'grad' %(a nil value%)", function()
    return "gradients are there after loss:backward(), of parameters that the loss depends on"
  end},
  {"attempt to index %a+ '([%w_]+)' %(a number value%)", function(name)
    return ("%s is a number, as t:item() returns, not a tensor"):format(name)
  end},
  {"attempt to [%a ]+ %a+ '([%w_]+)' %(a function value%)", function(name) return METHOD:format(name) end},
  {"bad argument #1 to 'i?pairs' %(table expected, got function%)", function() return METHOD:format "parameters" end},
  {"attempt to [%a ]* function value", function() return METHOD:format "parameters" end},
  {"attempt to compare %a+ with function", function() return METHOD:format "numel" end},
  {"attempt to compare function with %a+", function() return METHOD:format "numel" end},
  {"attempt to call a table value", function()
    return "of a loader, write: for batch in loader:epoch(0) do"
  end},
}

local COMPARE = "if the table is a tensor: t:lt(x) compares its elements, as do le, gt, ge, eq and ne; " ..
  "t:item() < x, a scalar"

--- Returns the remedy for an error text, nil if none is known.
---@param text string
---@return string?
return function(text)
  if text:find "attempt to compare table with number" or text:find "attempt to compare number with table" then
    return COMPARE
  end
  for _, rule in ipairs(rules) do
    local a, b = text:match(rule[1])
    if a then return rule[2](a, b) end
  end
end
