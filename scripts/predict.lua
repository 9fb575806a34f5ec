--- Classifies images with a trained network: the likeliest classes and their probabilities.
--   build/atomo-lua scripts/predict.lua --weights run/best cat.png dog.jpg
local atomo = require "atomo"
local cli, log = atomo.cli, atomo.log
local files = require "atomo.core.files"
local image_file = require "atomo.data.image_file"
local script = require "atomo.tools.script"
local trained = require "atomo.tools.trained"

local models = require "models"

local opts = cli.parse {
  name = "predict.lua",
  about = "Classifies images with a trained network: classes and probabilities, the likeliest first. Images of " ..
    "another size are scaled to cover the network's, and keep their middle.",
  examples = {
    "build/atomo-lua scripts/predict.lua --weights run/best --data cifar-10-batches-bin cat.png dog.jpg",
    "build/atomo-lua scripts/predict.lua --weights weights.safetensors --model resnet20 --data synthetic --top 3 x.npy",
    "build/atomo-lua scripts/predict.lua --weights run --classes cat,dog cat.png",
  },
  options = {
    {"weights", "string", nil, "folder of checkpoints (its newest), DIR/best, DIR/step-N, or a file: .safetensors, " ..
      ".npz, .pt, .pth (PyTorch's)", required = true, metavar = "FILE"},
    {"model", "string", "", "network: resnet20, ..., or a file my_model.lua; if absent: that of the run that saved it"},
    {"data", "string", "", "data set that it was trained on, for names of classes and normalisation; synthetic: the " ..
      "built-in one"},
    {"classes", "list", nil, "names of the classes, in the order of their labels; if absent: those of --data, " ..
      "or of the training"},
    {"size", "int", 0, "height and width of the network's images; 0: those of its training, if the weights say so, " ..
      "else of --data, else 32", min = 0, unit = "pixels"},
    {"top", "int", 5, "likeliest classes to print", min = 1},
    {"threads", "int", 0, "threads; 0: all cores", min = 0, unit = "threads"},
  },
  positional = {{"image", "string", nil, "image file: PNG, JPEG, PNM, or .npy of u8 [h,w,c] or [n,h,w,c]",
    required = true, repeated = true}},
}

script.set_threads(opts.threads)
local found = trained.read(opts.weights)

--- Returns the data set of --data, without its training part where it has another one; nil if there is no --data.
local function open_data()
  if opts.data == "" then return nil end
  if opts.data == "synthetic" then return atomo.data.open(opts.data) end
  local ok, data = pcall(atomo.data.open, opts.data, {only = "test"})
  return ok and data or atomo.data.open(opts.data)
end
local data = open_data()
local from = found.inputs.shape and found.inputs or data or {}
local shape = from.shape or {32, 32, 3}
if opts.size > 0 then shape = {opts.size, opts.size, shape[3]} end
local model, name = trained.model(found, opts.model, models.open, shape)

--- Reads all images; returns them as u8 [n,h,w,c], and a name for each.
local function read_images()
  local list, names = {}, {}
  for i, path in ipairs(opts.image) do
    list[i] = image_file.read(path, shape)
    local count = list[i]:size(1)
    for k = 1, count do names[#names + 1] = count > 1 and ("%s [%d]"):format(path, k) or path end
  end
  return atomo.cat(list, 1), names
end

--- Prints an image's likeliest classes. row: probabilities by label from 0.
local function show(title, row, classes)
  local order = {}
  for label = 0, classes - 1 do order[label + 1] = label end
  table.sort(order, function(a, b) return row[a] > row[b] or (row[a] == row[b] and a < b) end)
  local names, rows = opts.classes or data and data.names or from.names or {}, {}
  local function class(label) return names[label + 1] or ("class %d"):format(label) end
  for i = 1, math.min(opts.top, classes) do rows[i] = {class(order[i]), ("%.4f"):format(row[order[i]])} end
  files.say(("%s: %s"):format(title, class(order[1])))
  files.say(log.pairs(rows))
end

local images, names = read_images()
files.say(("model: %s, %d parameters, from %s"):format(name, model:num_parameters(), found.path))
if not from.mean then files.say "the images are not normalised: neither --data nor the weights say how" end
local set = atomo.data.set(images, atomo.zeros({images:size(1)}, "i32"), 1)
local loader = atomo.data.loader {set = set, batch = math.min(100, #names), shuffle = false, mean = from.mean,
  std = from.std}
local done = 0
model:eval()
for batch in loader:epoch(0) do
  atomo.no_grad(function()
    local probabilities = atomo.F.softmax(model(batch.x)):contiguous()
    local classes = probabilities:size(2)
    if probabilities:count_nonfinite() > 0 then error("predict.lua: the network's output has NaN or Inf", 0) end
    if opts.classes and #opts.classes ~= classes then
      error(("predict.lua: --classes has %d names, the network has %d classes"):format(#opts.classes, classes), 0)
    end
    for i = 0, batch.n - 1 do show(names[done + i + 1], probabilities:data() + i * classes, classes) end
  end)
  done = done + batch.n
end
