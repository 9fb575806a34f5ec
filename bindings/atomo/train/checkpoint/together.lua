--- Errors that all ranks must share.
local raise = require("atomo.ffi").raise

local M = {}

--- What an error says, without the place in the source that Lua puts before it.
local function plain(text) return (tostring(text):gsub("^[^\n]-checkpoint: ", "")) end

--- fn() on every rank; what it returns on this one. Where it fails on any rank, the first one's words are raised on
--- all, after undo(), which may fail unheard, on every rank. [collective]
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

--- The text that rank 0 brings. [collective]
function M.from_first(comm, text) return comm:allgatherv(comm.rank == 0 and text or "")[1] end

--- Whether all ranks bring the same text. [collective]
function M.equal(comm, text)
  local all = comm:allgatherv(text)
  for _, other in ipairs(all) do
    if other ~= all[1] then return false end
  end
  return true
end

return M
