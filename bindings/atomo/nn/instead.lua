--- Answers names of PyTorch's and Torch's modules that are not offered with the form to use.
local raise = require("atomo.ffi").raise

-- What to write for methods of PyTorch's and Torch's modules that are not offered. Only names that no one would give to
-- an option of a model ("half"): a field that is not set is nil.
local instead = {
  clone = "make another and copy the values: other:load_state_dict(m:state_dict())",
  deepcopy = "make another and copy the values: other:load_state_dict(m:state_dict())",
  cuda = "write nothing: modules are in main memory", bfloat16 = 'atomo.set_precision "bf16" has products in bf16',
  add_module = "write m.name = layer", register_module = "write m.name = layer",
  register_parameter = "write m.name = atomo.param(t)",
  register_forward_hook = "there are no hooks: write a module that calls this one",
  register_full_backward_hook = "there are no hooks: an atomo.func sees gradients in its backward",
  evaluate = "write m:eval()", getParameters = "write m:parameters()", zeroGradParameters = "write m:zero_grad()",
  updateParameters = "use an optimizer, such as atomo.optim.sgd", updateOutput = "write m(x)",
  backward = "write loss:backward()", gradBias = "write m.bias.grad", gradWeight = "write m.weight.grad",
  get_parameter = "write m:state_dict()[name], or m.layer.weight", listModules = "write m:named_modules()",
  reset_parameters = "make the layer again", to = "write nothing: modules are in main memory",
  updateGradInput = "write loss:backward()", accGradParameters = "write loss:backward()",
}

--- Makes the reading of such a name of a module or its class raise; other names that are not set stay nil.
---@param Module table
return function(Module)
  setmetatable(Module, {__index = function(_, key)
    if instead[key] then raise(("module.%s: a module has no such name; %s"):format(key, instead[key])) end
    return nil
  end})
end
