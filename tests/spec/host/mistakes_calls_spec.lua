-- Mistakes in scripts, one a row: the error's first two lines name the place (file and line of the call), the cause and
-- the remedy: what to do, or what was expected. Rows run in this process, each as a script of its own.
-- mistakes_spec.lua has mistakes that end a program, or meet other ranks.
local atomo = require "atomo"

-- {what was meant, the script, the line of the mistake, the remedy, words of the error}
local rows = {
  {"sizes that do not broadcast", "local a = atomo.ones(2, 3)\nlocal b = a + atomo.ones(4)", 2,
    "sizes must be equal or 1", "[2,3]", "[4]"},
  {"matmul of unfit shapes", "atomo.ones(2, 3):matmul(atomo.ones(2, 3))", 1, "expected [..,m,k] x [..,k,n]", "matmul",
    "[2,3]"},
  {"an index beyond the end", "atomo.ones(3):get(4)", 1, "expected 1 to 3", "4"},
  {"the index 0, as in C", "atomo.ones(3):get(0)", 1, "expected 1 to 3", "0"},
  {"a view of another number of elements", "atomo.ones(6):view(4, 2)", 1, "product must be 6", "view", "[4,2]"},
  {"a property of PyTorch that is a method", "local n = atomo.ones(2, 3).shape[1]", 1, "write t:shape(...)", "shape"},
  {"a method that there is not", "atomo.ones(2):squeze()", 1, "did you mean 'squeeze'", "squeze"},
  {"a function that there is not", "atomo.zeroes(3)", 1, "did you mean 'zeros'", "zeroes"},
  {"a layer in PyTorch's spelling", "atomo.nn.Conv2D {}", 1, "did you mean 'Conv2d'", "Conv2D"},
  {"a layer that there is not", "atomo.nn.Linearr(3, 4)", 1, "did you mean 'Linear'", "Linearr"},
  {"a function of F that there is not", "atomo.F.relue(atomo.ones(2))", 1, "did you mean 'relu'", "relue"},
  {"an optimizer that there is not", "atomo.optim.sdg {}", 1, "did you mean 'sgd'", "sdg"},
  {"a schedule that there is not", "atomo.schedule.cosin {}", 1, "did you mean 'cosine'", "cosin"},
  {"an option that there is not", "local p = atomo.param(atomo.ones(2))\n" ..
    "atomo.optim.sgd {params = {p}, learning_rate = 1}", 2, "options are dampening, lr", "learning_rate"},
  {"a learning rate as text", "local p = atomo.param(atomo.ones(2))\natomo.optim.sgd {params = {p}, lr = 'high'}", 2,
    "expected a number >= 0", "lr", "high"},
  {"an optimizer without parameters", "atomo.optim.sgd {lr = 0.1}", 1, "expected a list of parameters", "params"},
  {"backward of what is no scalar", "local p = atomo.param(atomo.ones(2))\n;(p * 2):backward()", 2,
    "reduce it with :sum()", "backward", "[2]"},
  {"backward without a parameter", "atomo.ones(1):sum():backward()", 1, "atomo.param(t)", "backward"},
  {"a tensor used after it was freed", "local t\natomo.scope(function() t = atomo.ones(2) end)\nprint(t:sum())", 3,
    "call t:keep()", "freed"},
  {"a tensor that the user freed", "local t = atomo.ones(2)\nt:free()\nprint(t:sum())", 3, "free it after its last use",
    "freed"},
  {"labels beyond the classes", "atomo.F.cross_entropy(atomo.ones(2, 3), atomo.tensor({0, 3}, 'i32'))", 1,
    "expected 0 to 2", "label 3"},
  {"labels as floats", "atomo.F.cross_entropy(atomo.ones(2, 3), atomo.tensor {0, 1})", 1, "expected i32",
    "cross_entropy"},
  {"images of other channels", "local conv = atomo.nn.Conv2d(3, 8, 3)\nconv(atomo.ones(1, 8, 8, 4))", 2, "expected 3",
    "4"},
  {"images in PyTorch's order", "local conv = atomo.nn.Conv2d(3, 8, 3)\nconv(atomo.ones(1, 3, 32, 32))", 2,
    "images are N,H,W,C", "32 channels"},
  {"a compressor that there is not", "atomo.compressor 'sdv:ratio=4'", 1, "did you mean 'svd'", "sdv"},
  {"an option of a compressor that there is not", "atomo.compressor 'svd:rato=4'", 1, "did you mean 'ratio'", "rato"},
  {"five bits", "atomo.compressor 'svd:ratio=4,bits=5'", 1, "expected 32, 16, 8", "bits is '5'"},
  {"one byte", "local c = atomo.compressor 'svd:bytes=1'\nc:encode(atomo.randn(64, 64))", 2, "expected a larger budget",
    "bytes", "1"},
  {"a ratio of zero", "atomo.compressor 'svd:ratio=0'", 1, "expected a number of 0.001 to", "ratio"},
  {"two budgets", "atomo.compressor 'svd:ratio=4,bytes=100'", 1, "give one budget", "ratio", "bytes"},
  {"a gradient with NaN", "local c = atomo.compressor 'svd:ratio=4'\nc:encode(atomo.full({4, 4}, 0 / 0))", 2,
    "expected none", "NaN"},
  {"a message of another compressor", "local m = atomo.compressor('svd:ratio=2'):encode(atomo.ones(4, 4))\n" ..
    "local c = atomo.compressor 'qsgd'\nc:encode(atomo.ones(4, 4))\nc:decode(m)", 4, "decode it as it was encoded",
    "codec"},
  {"a basis without its inverse", "atomo.basis('mine', {analyze = function(g) return g end})", 1, "expected a function",
    "synthesize", "missing"},
  {"a decomposition in bits that there are not", "atomo.decomposition('mine', {bits = 5, decompose = print, " ..
    "reconstruct = print})", 1, "expected 32, 16, 8", "bits is 5"},
  {"a codec without decode", "atomo.codec('mine', {encode = print})", 1, "expected a function", "decode", "missing"},
  {"a topology that there is not", "atomo.exchange {topology = 'allgathr'}", 1, "expected allreduce, allgather",
    "allgathr"},
  {"a number of ranks for a communicator", "atomo.exchange {comm = 3}", 1, "expected a communicator", "comm is 3"},
  {"a gradient without its number", "atomo.exchange({}):push(atomo.ones(2, 3))", 1, "expected 1, 2, ...",
    "gradient number a tensor f32 [2,3]"},
  {"a compressor that its topology cannot sum", "atomo.exchange {compress = 'svd:ratio=4', topology = 'allreduce'}", 1,
    "can go by topology allgather", "allreduce"},
  {"a data set in place of a loader", "local net = atomo.nn.Linear(2, 2)\nlocal set = atomo.data.synthetic " ..
    "{train = 8, test = 8}\natomo.train {model = net, data = set.train, optimizer = atomo.optim.sgd " ..
    "{params = net:parameters(), lr = 1}}", 3, "atomo.data.loader{set = ...}", "data set"},
  {"training without a model", "atomo.train {data = {}, optimizer = {}}", 1, "expected a module", "model", "missing"},
  {"a misspelt option of train", "atomo.train {modell = 1}", 1, "did you mean 'model'", "modell"},
  {"a data set that is not there", "atomo.data.open 'no/such/folder'", 1, "expected the files of CIFAR-10",
    "no/such/folder"},
  {"an array that is not there", "atomo.from_npy 'no_such.npy'", 1, "check the path", "no_such.npy", "No such file"},
  {"a batch of zero images", "local set = atomo.data.synthetic {train = 8, test = 8}\n" ..
    "atomo.data.loader {set = set.train, batch = 0}", 2, "expected a whole number of at least 1", "batch", "0"},
  {"inputs and labels of two lengths", "atomo.data.tensors {x = atomo.ones(4, 2), y = atomo.zeros(5):int(), batch = 2}",
    1, "expected as many samples in both", "4", "5"},
  {"a state of another model", "local a, b = atomo.nn.Linear(2, 3), atomo.nn.Linear(2, 4)\n" ..
    "a:load_state_dict(b:state_dict())", 2, "expected [3,2]", "weight", "[4,2]"},
  {"a receive from a rank that there is not", "atomo.mpi.world:recv(atomo.ones(1), 7)", 1, "expected 0 to 0", "7"},
}

local function lines(text, n)
  local list = {}
  for line in (text .. "\n"):gmatch "(.-)\n" do
    if #list < n then list[#list + 1] = line end
  end
  return table.concat(list, "\n")
end

describe("a mistake in a script:", function()
  for _, row in ipairs(rows) do
    local what, script, line = row[1], row[2], row[3]
    it(what, function()
      local chunk = assert(loadstring("local atomo = require 'atomo' " .. script, "@mistake.lua"))
      local ok, why = pcall(chunk)
      assert.is_false(ok, "no error")
      local first = lines(tostring(why), 2)
      assert(first:find(("^mistake%%.lua:%d: "):format(line)), "the place is not named: " .. first)
      assert(#row > 4, "the row has no remedy, or no word of the cause")
      for k = 4, #row do
        assert(first:find(row[k], 1, true), ("'%s' is not in the first two lines: %s"):format(row[k], first))
      end
    end)
  end

  it("leaves the library as it was", function()
    assert.equal(6, (atomo.ones(2, 3)):sum():item())
    assert.is_true(atomo.compressor("svd:ratio=4"):encode(atomo.randn(8, 8)).nbytes > 0)
  end)
end)

--- The methods of an object, by name, those of its class's parents too.
local function methods_of(object)
  local all, class = {}, getmetatable(object)
  while class do
    for name, method in pairs(type(class.__index) == "table" and class.__index or {}) do
      if type(method) == "function" and not name:find "^_" then all[name] = all[name] or method end
    end
    class = getmetatable(type(class.__index) == "table" and class.__index or nil)
  end
  return all
end

describe("a method called with '.' and no argument, as in Python,", function()
  local p = atomo.param {1}
  local objects = {tensor = p, module = atomo.nn.Linear(1, 1), optimizer = atomo.optim.sgd {params = {p}, lr = 1},
    average = atomo.optim.ema {params = {p}}}
  local none = {extend = true, init = true, text = true, describe = true, forward = true} -- of classes, or internal

  for what, object in pairs(objects) do
    it("is refused at the caller's line, of every " .. what, function()
      local count = 0
      for name, method in pairs(methods_of(object)) do
        if not none[name] then
          local ok, text = pcall(function()
            local result = method()
            return result
          end)
          assert.is_false(ok, name)
          assert.matches("^[^:]*mistakes_calls_spec.lua:%d+: ", text, name)
          if what ~= "tensor" then assert.matches("with a colon", text, name) end
          count = count + 1
        end
      end
      assert.is_true(count >= 5)
    end)
  end

  it("names the colon", function()
    for _, name in ipairs {"backward", "item", "shape", "size", "view", "numel", "dtype", "detach", "zero_grad", "t",
      "contiguous", "float", "data", "clone"} do
      local ok, text = pcall(function()
        local result = p[name]()
        return result
      end)
      assert.is_false(ok)
      assert.is_truthy(text:find("with a colon", 1, true) or text:find("expected a tensor", 1, true), text)
    end
  end)
end)

describe("a method of tensors called with '.' in place of ':'", function()
  it("raises, and reads no memory of what is no tensor", function()
    local t, count = atomo.ones(2), 0
    for name, method in pairs(atomo.Tensor) do
      if type(method) == "function" and name ~= "save_npy" then
        for _, first in ipairs {{}, {2, 3}, "f32"} do
          for _, more in ipairs {{}, {1}, {1, 1}, {t}, {t, 1}, {2, t}} do pcall(method, first, unpack(more)) end
        end
        count = count + 1
      end
    end
    assert.is_true(count > 80)
    for _, call in ipairs {function() t.max {1} end, function() t.add_(3) end, function() t.sum "mean" end} do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.matches("write t:method%(%.%.%.%), with a colon", message)
    end
  end)
end)
