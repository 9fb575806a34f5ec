--- Runs functions on all ranks and raises an error of any rank on all.
local raise = require("atomo.ffi").raise

local M = {}

--- Returns an error's text without Lua's source position, which the error raised on all ranks has, and without the
--- prefix "checkpoint: ".
local function plain(text) return (tostring(text):gsub("^[^%s:]+:%d+: ", ""):gsub("^[^\n]-checkpoint: ", "")) end

--- Runs fn() on every rank; returns its result. If it raises on any rank, runs undo() on every rank, ignoring its
--- errors, then raises the text of the first rank that failed on all. [collective]
---@param comm table
---@param fn fun(): any
---@param undo fun()?
function M.run(comm, fn, undo)
  local ok, result = pcall(fn)
  for rank, text in ipairs(comm:allgatherv(ok and "" or "!" .. tostring(result))) do
    if text ~= "" then
      if undo then pcall(undo) end
      raise(("checkpoint: rank %d: %s"):format(rank - 1, plain(text:sub(2))))
    end
  end
  return result
end

--- Returns rank 0's text on all ranks. [collective]
function M.from_first(comm, text) return comm:allgatherv(comm.rank == 0 and text or "")[1] end

--- Is the text equal on all ranks? [collective]
function M.equal(comm, text)
  local all = comm:allgatherv(text)
  for _, other in ipairs(all) do
    if other ~= all[1] then return false end
  end
  return true
end

return M
