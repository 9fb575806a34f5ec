--- Versions of the libraries, compiler and CPU that determine a run's bits and speed: a line for people, a table for
--- logs.
local f = require "atomo.ffi"
local ffi, C = f.ffi, f.C

local M = {}

local keys = {"mpi", "blas", "fftw", "onednn", "cpu", "compiler"}

--- {atomo=, luajit=, mpi=, blas=, fftw=, onednn=, cpu=, compiler=}
---@return table<string, string>
---@usage type(atomo.versions().luajit) --> string
function M.versions()
  local v = {atomo = ffi.string(C.atomo_version()), luajit = jit.version:gsub("^LuaJIT ", "")}
  for _, key in ipairs(keys) do v[key] = ffi.string(C.atomo_build_info(key)) end
  return v
end

--- "atomo-lua 0.2.0, LuaJIT 2.1.0, Open MPI v4.1.4, ..."
---@return string
---@usage atomo.version_text():match "^atomo%-lua" --> atomo-lua
function M.version_text()
  local v = M.versions()
  return ("atomo-lua %s, LuaJIT %s, %s, %s, %s, oneDNN %s, compiler %s"):format(v.atomo, v.luajit, v.mpi,
    v.blas:match "^%S+ %S+" or v.blas, v.fftw, v.onednn, v.compiler)
end

return M
