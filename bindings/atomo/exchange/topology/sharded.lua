--- Topology sharded: every rank owns an equal part of every bucket; tensors are cut between rows at the end of a part.
-- While backward continues, every rank sends its messages to the owners (all-to-all). An owner averages its part and
-- encodes the average again with a separate random stream; these messages are all-gathered after the next bucket's
-- messages. Both draws are unbiased, so the result is; its variance is that of the mean (1/P of one rank's) plus that
-- of the second draw.  Traffic does not grow with the number of ranks P. A rank receives (P - 1)/P of a step's messages
-- on each of the two ways. Both ways are encoded with P / (2 (P - 1)) times the budget given (ratio=, bytes=), so that
-- a rank receives the budget per step, for any P. With compressors without such a budget (qsgd, ...) it receives 2 (P -
-- 1)/P messages.
local Coded = require "atomo.exchange.bucket.compressed"
local messages = require "atomo.exchange.messages"

local MIN_PIECE = 2048 -- least elements of a piece; a smaller one is joined to its neighbour

local M = {most = 3} -- buckets of messages per step; few, since each is cut up to P - 1 times

function M.refuses(o) return messages.refuses_again(o, "") end

--- Returns the factor for the budget of both ways; nil (1) for two ranks or one.
function M.share(ranks) return ranks > 2 and ranks / (2 * (ranks - 1)) or nil end

--- Returns the rank that averages message m (m.owner counts from 1).
function M.owner(m) return m.owner - 1 end

function M.program() return {"encode", "alltoall", "average", "encode_again", "allgather", "decode"} end

--- Joins pieces that are too small to a neighbour of the same tensor.
local function join_small(pieces)
  local out = {}
  for _, p in ipairs(pieces) do
    local before = out[#out]
    if before and (p.n < MIN_PIECE or before.n < MIN_PIECE) then
      if before.n < p.n then before.owner = p.owner end
      before.rows, before.n = before.rows + p.rows, before.n + p.n
    else
      out[#out + 1] = p
    end
  end
  return out
end

--- Cuts neighbouring messages {index=, shape=, n=}, of `total` elements together, into equal parts for `ranks` owners.
-- A row belongs to the owner whose part contains its middle. Returns the pieces in order; owners, from 1, ascend.
---@return table[] pieces
function M.cut_bucket(list, total, ranks)
  local out, at = {}, 0
  for _, m in ipairs(list) do
    local rows, pieces = m.shape[1], {}
    local row = m.n / rows
    for r = 1, rows do
      local owner = math.min(ranks, 1 + math.floor((at + row / 2) * ranks / total))
      local p = pieces[#pieces]
      if not p or p.owner ~= owner then
        p = {index = m.index, owner = owner, from = r, rows = 0, n = 0}
        pieces[#pieces + 1] = p
      end
      p.rows, p.n, at = p.rows + 1, p.n + row, at + row
    end
    pieces = join_small(pieces)
    for _, p in ipairs(pieces) do
      p.shape = {p.rows, unpack(m.shape, 2)}
      if #pieces == 1 then p.from = nil end -- the tensor is not cut
      out[#out + 1] = p
    end
  end
  for k = 2, #out do out[k].owner = math.max(out[k].owner, out[k - 1].owner) end
  return out
end

--- Replaces messages by their pieces, bucket by bucket. Within a bucket, messages and owners ascend.
---@param list table[]
---@param ranks integer
---@param most integer  largest number of buckets, which are cut in the same way from the result
function M.cut(list, ranks, most)
  local buckets, pieces = Coded.cut(list, most), {}
  for b = #buckets, 1, -1 do -- Coded.cut returns the last tensors first
    local bucket, total = {unpack(list, buckets[b].first, buckets[b].last)}, 0
    for _, m in ipairs(bucket) do total = total + m.n end
    for _, p in ipairs(M.cut_bucket(bucket, total, ranks)) do pieces[#pieces + 1] = p end
  end
  return pieces
end

return M
