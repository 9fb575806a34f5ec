--- Weights of a sharded optimizer that travel in 16 bits: the owner of a part sends the change of its weights, rounded
-- to bf16, and all ranks, the owner too, add what was sent to the weights before. So replicas stay bit-identical. The
-- error is at most 1/512 of each change; later steps do not make up for it.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local C, check = f.C, f.check

local M = {}

--- Runs update(), which changes `part`; returns the change as bf16 codes, and restores the part.
---@param part atomo.Tensor
---@param update fun()
---@return atomo.Tensor codes  u8 [2 n]
function M.change(part, update)
  local old, out = part:clone(), T.out()
  update()
  part:axpy_(-1, old)
  check(C.atomo_bf16_pack(part.h, out))
  local codes = T.wrap(out[0])
  part:copy_(old)
  old:free()
  return codes
end

--- Allocates the codes that this rank receives, for this step only: between steps their memory serves activations and
--- gradients. codes: those of its own parts, by their numbers in the plan.
---@param plan table  of shards.lua
---@param codes table<integer, atomo.Tensor>
function M.prepare(plan, codes)
  for k, part in ipairs(plan.parts) do codes[k] = codes[k] or T.empty({2 * part:numel()}, "u8") end
end

--- Sends this rank's codes to the others, and adds all parts' changes to the weights; frees the codes. [collective]
---@param comm atomo.Comm
---@param plan table
---@param codes table<integer, atomo.Tensor>
function M.exchange(comm, plan, codes)
  for k = 1, plan.n do plan.handles[k - 1] = codes[k].h end
  check(C.atomo_comm_allgather_parts(comm.h, plan.handles, plan.ranks, plan.n))
  for k, part in ipairs(plan.parts) do
    local out = T.out()
    check(C.atomo_bf16_unpack(codes[k].h, part.h, out))
    local change = T.wrap(out[0])
    part:add_(change)
    change:free()
    codes[k]:free()
  end
end

return M
