--- Describes files that are not checkpoints of this run: other kinds of files, and checkpoints of other models.
local T = require "atomo.tensor"
local manifest = require "atomo.train.checkpoint.manifest"
local raise = require("atomo.ffi").raise

local M = {}

--- First bytes of a file -> what it is.
local kinds = {
  {"^PK\3\4", "a zip archive (a file of PyTorch, or .npz)"}, {"^\128[\2-\5]", "a pickle (a file of PyTorch or Python)"},
  {"^\147NUMPY", "a file of NumPy"}, {"^\137HDF", "an HDF5 file"}, {"^\31\139", "a gzip file"}, {"^{", "a JSON file"},
  {"^\127ELF", "a program"},
}

local function first_bytes(path)
  local file, why = io.open(path, "rb")
  if not file then raise(("checkpoint: %s cannot be read: %s"):format(path, why)) end
  local text = file:read(256) or ""
  file:close()
  return text
end

local function kind_of(text)
  for _, kind in ipairs(kinds) do
    if text:find(kind[1]) then return kind[2] end
  end
  if text == "" then return "an empty file" end
  return not text:find "[%z\1-\8\14-\31]" and "a text file" or nil
end

--- Raises if the file at `path` cannot be a checkpoint of an earlier version, which is one safetensors file: says what
--- it is, and what was expected.
---@param path string
function M.check_file(path)
  local folder, name = path:match "^(.-)/*([^/]+)$"
  if name == manifest.NAME or name:match "%.safetensors$" and manifest.read(folder) then
    raise(("checkpoint: %s is one file of a checkpoint: resume from its folder, %s"):format(path, folder))
  end
  local kind = kind_of(first_bytes(path))
  if kind then
    raise(("checkpoint: %s is %s, no checkpoint: expected a folder that was saved to, one of its checkpoints " ..
      "step-N, or auto"):format(path, kind))
  end
end

--- Returns at most three of the names, sorted, and how many more there are; nil for an empty list.
local function some(names)
  if #names == 0 then return end
  table.sort(names)
  local more = #names > 3 and (" and %d more"):format(#names - 3) or ""
  return table.concat(names, ", ", 1, math.min(3, #names)) .. more
end

--- Returns how the saved model differs from this one: "lenet with 8 tensors there, resnet20 with 112 here; ...".
---@param saved table<string, atomo.Tensor>
---@param mine table<string, atomo.Tensor>
---@param saved_name string?
---@param my_name string?
---@return string
function M.model_text(saved, mine, saved_name, my_name)
  local missing, unexpected, shapes, parts, here, there = {}, {}, {}, {}, 0, 0
  for name, t in pairs(mine) do
    here = here + 1
    if not saved[name] then
      missing[#missing + 1] = name
    elseif T.shape_text(saved[name]) ~= T.shape_text(t) then
      shapes[#shapes + 1] = ("%s is %s there, %s here"):format(name, T.shape_text(saved[name]), T.shape_text(t))
    end
  end
  for name in pairs(saved) do
    there = there + 1
    if not mine[name] then unexpected[#unexpected + 1] = name end
  end
  parts[1] = ("%s with %d tensors there, %s with %d here"):format(saved_name or "a model", there,
    my_name or "a model", here)
  for _, part in ipairs {{"only there: ", some(unexpected)}, {"only here: ", some(missing)},
    {"wrong shape: ", some(shapes)}} do
    if part[2] then parts[#parts + 1] = part[1] .. part[2] end
  end
  return table.concat(parts, "; ")
end

return M
