--- NumPy files: atomo.from_npy(path), t:save_npy(path). Floats become f32, booleans
-- u8, integers but u8 i32; a value that does not fit is refused.
local f = require "atomo.ffi"
local T = require "atomo.tensor"

local M = {}

local function path_of(path, what)
  if type(path) ~= "string" then
    f.raise(("%s: path is %s, expected a string"):format(what, path == nil and "missing" or "a " .. type(path)))
  end
  return path
end

--- Reads a .npy file (versions 1 to 3, C or Fortran order).
---@param path string
---@return atomo.Tensor
function M.from_npy(path)
  local out = T.out()
  f.check(f.C.atomo_npy_read(path_of(path, "from_npy"), out))
  return T.wrap(out[0])
end

--- Writes the tensor as .npy, by way of a temporary file, so that path has either the old file or the whole new one.
---@param path string
---@return atomo.Tensor self
function T.Tensor:save_npy(path)
  f.check(f.C.atomo_npy_write(self.h, path_of(path, "save_npy")))
  return self
end

return M
