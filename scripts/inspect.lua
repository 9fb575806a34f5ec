--- Shows the contents of files and folders that training writes: checkpoints, tensors, logs.
--   build/atomo-lua scripts/inspect.lua run
local atomo = require "atomo"
local cli = atomo.cli
local contents = require "atomo.tools.contents"
local files = require "atomo.core.files"

local opts = cli.parse {
  name = "inspect.lua",
  about = "Shows the contents of a folder of checkpoints, a checkpoint, a file of tensors or a log: model, step, " ..
    "settings, files and whether their checksums are right; tensors with shape, size, norm, least and largest " ..
    "value; epochs.",
  examples = {
    "build/atomo-lua scripts/inspect.lua run",
    "build/atomo-lua scripts/inspect.lua run/best --only conv1",
    "build/atomo-lua scripts/inspect.lua run/step-120/optimizer.safetensors",
    "build/atomo-lua scripts/inspect.lua run.jsonl resnet18.pth",
  },
  options = {{"only", "string", "", "only tensors whose names contain TEXT"}},
  positional = {{"path", "string", nil, "folder of checkpoints, DIR/best, DIR/step-N, or a file: .safetensors, " ..
    ".npz, .npy, .pt, .jsonl", required = true, repeated = true}},
}

for i, path in ipairs(opts.path) do
  if i > 1 then files.say "" end
  files.say(table.concat(contents.describe(path, opts.only), "\n"))
end
