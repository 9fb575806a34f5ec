--- Reads image files as u8 [h,w,c] tensors; the format is recognised by the file's first bytes: PNM (PGM and PPM, plain
-- or binary) and NumPy's .npy of one image or several.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local npy = require "atomo.tensor.npy"
local raise = f.raise

local M = {}

local function refuse(path, text, ...) raise(("image: %s: " .. text):format(path, ...)) end

-- ---- PNM ---------------------------------------------------------------------------------------------------------

local channels_of = {P2 = 1, P3 = 3, P5 = 1, P6 = 3}

--- Reads the header "P6 WIDTH HEIGHT LARGEST", with comments; returns its fields and the offset of the samples, from 1.
local function pnm_header(path, text)
  local at, fields = 3, {}
  for i, name in ipairs {"width", "height", "largest value"} do
    local from = text:match("^%s*()", at)
    while text:sub(from, from) == "#" do from = text:match("^[^\n]*%s*()", from) end
    local digits, stop = text:match("^(%d+)()", from)
    fields[i] = tonumber(digits)
    if not fields[i] or fields[i] < 1 or fields[i] > 65535 then
      refuse(path, "its %s is '%s', expected 1 to 65535", name, text:match("^%S*", from):sub(1, 12))
    end
    at = stop
  end
  if not text:match("^%s", at) then refuse(path, "its header does not end with a space or newline") end
  return fields[1], fields[2], fields[3], at + 1
end

--- Returns a function that returns the next sample of a plain file.
local function plain_samples(path, text, at)
  return function()
    local digits, stop = text:match("^%s*(%d+)()", at)
    if not digits then refuse(path, "it ends early, or '%s' is no sample", text:match("^%s*(%S*)", at):sub(1, 12)) end
    at = stop
    return tonumber(digits)
  end
end

local function binary_samples(path, text, at, count, wide)
  local bytes = wide and 2 or 1
  if #text - at + 1 < count * bytes then
    refuse(path, "it has %d bytes of samples, expected %d", #text - at + 1, count * bytes)
  end
  at = at - bytes
  return function()
    at = at + bytes
    return wide and text:byte(at) * 256 + text:byte(at + 1) or text:byte(at)
  end
end

local function read_pnm(path, text)
  local kind = text:sub(1, 2)
  local w, h, largest, at = pnm_header(path, text)
  local c = channels_of[kind]
  local plain, count = kind == "P2" or kind == "P3", w * h * c
  if plain and #text < 2 * count then refuse(path, "it has %d bytes, too few for %d x %d samples", #text, w, h) end
  local next_sample = plain and plain_samples(path, text, at) or binary_samples(path, text, at, count, largest > 255)
  local image = T.empty({h, w, c}, "u8")
  local p = image:data()
  for i = 0, count - 1 do
    local v = next_sample()
    if v > largest then refuse(path, "a sample is %d, its header says at most %d", v, largest) end
    p[i] = largest == 255 and v or math.floor(v * 255 / largest + 0.5)
  end
  return {image}
end

-- ---- .npy --------------------------------------------------------------------------------------------------------

local function read_npy(path)
  local t = npy.from_npy(path)
  if t:dtype() ~= "u8" or t:dim() < 2 or t:dim() > 4 then
    refuse(path, "it holds %s %s, expected u8 [h,w], [h,w,c] or [n,h,w,c]", t:dtype(), T.shape_text(t))
  end
  if t:dim() == 2 then t = t:unsqueeze(-1) end
  if t:dim() == 3 then return {t} end
  local list = {}
  for i = 1, t:size(1) do list[i] = t:select(1, i):contiguous() end
  return list
end

-- ---- any ---------------------------------------------------------------------------------------------------------

--- First bytes of a file (a pattern) -> function(path, text) that returns a list of images.
M.readers = {{"^P[2356]%s", read_pnm}, {"^\147NUMPY", read_npy}}

--- Reads the images of a file: usually one, the n of an .npy file [n,h,w,c].
---@param path string
---@return atomo.Tensor[]  u8 [h,w,c]
function M.read(path)
  local file, why = io.open(path, "rb")
  if not file then raise("image: " .. why) end
  local text = file:read "*a"
  file:close()
  if not text then refuse(path, "it cannot be read: it is a folder, or unreadable") end
  for _, entry in ipairs(M.readers) do
    if text:find(entry[1]) then return entry[2](path, text) end
  end
  local start = text:sub(1, 8):gsub("[^%g ]", "?")
  refuse(path, "it begins with '%s', which is no image: expected PGM, PPM or .npy", start)
end

return M
