--- The tensors of a batch (stage 2). They lie in buffers of the loader, which later batches reuse. Each batch has
-- tensors of its own over them, so that what a user sets on one (requires_grad, .grad) ends with it. They end when the
-- next batch is made: a later use raises, and so does a backward that would read their values, or those of a view.
local T = require "atomo.tensor"
local C = require("atomo.ffi").C

local M = {}

local when = "when the loader made the next batch; to use it longer, keep a :clone() of it"

--- Ends the tensors of the last batch that the loader made.
function M.finish(loader)
  local last = rawget(loader, "last_batch")
  for buffer, given in pairs(last or {}) do
    C.atomo_tensor_touch(buffer.h)
    T.expire(given, when)
  end
  rawset(loader, "last_batch", nil)
end

--- Sets batch.x and batch.y to tensors over the loader's buffers x and y; returns the batch.
function M.make(loader, batch, x, y)
  batch.x, batch.y = T.borrow(x), T.borrow(y)
  rawset(loader, "last_batch", {[x] = batch.x, [y] = batch.y})
  return batch
end

return M
