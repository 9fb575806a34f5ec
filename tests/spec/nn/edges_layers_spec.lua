-- Layers and fused operators with the golden cases of edges_golden_spec. Every function on numbers needs a case; one
-- without fails here by its name.
local atomo = require "atomo"
local edges = require "support.edges"
local rows = require "support.edge_rows"
local layers = require "support.edge_layers"

local cases, by_name = edges.cases(), {}
for _, case in ipairs(cases) do by_name[case.name] = case end

local function same(got, want, row, what)
  local text = edges.difference(got, want, row.ulp, row.abs)
  assert.is_nil(text, what .. ": " .. tostring(text))
end

--- Compares fn(inputs...) with the case, and the gradients of the first `count` inputs.
local function check(case, fn, row, count)
  local backward = case.gradients ~= nil
  local y, gradients = edges.run(fn, case.inputs, backward)
  same(y, case.result, row, "result")
  for i = 1, backward and count or 0 do
    if case.gradients[i] then same(gradients[i], case.gradients[i], row, "gradient " .. i) end
  end
end

describe("layers at the edges:", function()
  for name, layer in pairs(layers.layers) do
    it(name, function()
      local case = by_name[layer[1]]
      local made, count = layer[2](unpack(case.inputs)), layer.inputs or 1
      check(case, function(...) return made(unpack({...}, 1, count)) end, rows.of(case.name), count)
    end)
  end
end)

describe("fused at the edges:", function()
  for _, case in ipairs(cases) do
    local row = rows.of(case.name)
    if row.fused then
      it(case.name, function()
        local fused
        if row.elementwise == 1 then
          fused = atomo.elementwise("fused", function(x) return row.fn(x) end)
        else
          fused = atomo.elementwise("fused", function(a, b) return row.fn(a, b) end)
        end
        local shape = case.result:shape()
        check(case, function(...)
          local wide = {...}
          for i, x in ipairs(wide) do wide[i] = x:expand(shape) end
          return fused(unpack(wide))
        end, row, #case.inputs)
      end)
    end
  end
end)

describe("every name that numbers go through", function()
  -- Reasons why a name has no case.
  local without = {
    T = {
      moves = "bytes cat clone contiguous copy_ data detach dim dtype element_size expand flatten get index_select " ..
        "is_contiguous item keep narrow numel permute reshape save_npy select set shape size squeeze t to totable " ..
        "transpose unsqueeze view",
      ["rearranging_spec"] = "allclose equal unbind",
      ["selecting_spec, sums_spec"] = "argsort chunk gather sort split std topk var where",
      ["in place or converting: edges_inplace_spec"] = "abs_ add_ axpy_ clamp_ div_ exp_ fill_ float int log_ " ..
        "maximum_ minimum_ mul_ neg_ pow_ relu_ sigmoid_ sqrt_ sub_ tanh_ zero_",
      ["adding_spec, in_place_spec"] = "index_add_ scatter_add_",
      ["a Lua number: integers_spec, edges_rest_spec"] = "count_nonfinite dot_value norm_value",
      random = "normal_ uniform_",
      ["no numbers"] = "__concat __index __le __lt __newindex __tostring __gc backward free requires_grad_ zero_grad",
    },
    F = {
      ["edges_rest_spec"] = "accuracy dropout self_attention",
      ["nn_module_spec"] = "dropout2d",
      ["linear_cross_entropy_spec"] = "linear_cross_entropy",
      ["what others call"] = "batch_norm_with check_dropout check_loss conv_transpose2d_with dropout_state " ..
        "dropout_stream loss_options next_dropout_stream put_dropout_state transpose_window",
    },
    nn = {["no layers"] = "Module conv_engine init is_module set_conv_engine"},
    atomo = {},
  }

  local function excused(list, name)
    for _, names in pairs(list) do
      for word in names:gmatch "%S+" do
        if word == name then return true end
      end
    end
    return false
  end

  --- Returns the names in a table without a case or a reason; aliases (the same function) count once.
  local function missing(prefix, module, has)
    local spoken, list = {}, {}
    for name, v in pairs(module) do
      if has(name) then spoken[v] = true end
    end
    for name, v in pairs(module) do
      local known = has(name) or spoken[v] or excused(without[prefix], name) or name == "__name" -- not a function
      if type(name) == "string" and not known then list[#list + 1] = name end
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  local function has_case(prefix)
    local names = {}
    for _, case in ipairs(cases) do
      local name = case.name:match("^" .. prefix .. "%.([^/]+)")
      if name then names[name] = true end
    end
    return function(name) return names[name] end
  end

  it("of tensors has a case", function() assert.equal("", missing("T", atomo.Tensor, has_case "T")) end)
  it("of atomo.F has a case", function() assert.equal("", missing("F", atomo.F, has_case "F")) end)
  it("of linear algebra has a case", function()
    assert.equal("", missing("atomo", require "atomo.tensor.linalg", has_case "atomo"))
  end)
  it("of atomo.nn is a layer with a case", function()
    assert.equal("", missing("nn", atomo.nn, function(name) return layers.layers[name] end))
  end)

  it("excused is there", function()
    local modules = {T = atomo.Tensor, F = atomo.F, nn = atomo.nn, atomo = atomo}
    local gone = {}
    for prefix, list in pairs(without) do
      for _, names in pairs(list) do
        for name in names:gmatch "%S+" do
          local optional = name == "cat" or name == "__gc"
          if not optional and modules[prefix][name] == nil then gone[#gone + 1] = prefix .. "." .. name end
        end
      end
    end
    assert.equal("", table.concat(gone, " "))
  end)
end)
