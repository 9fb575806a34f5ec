--- Topology sharded: every rank owns an equal part of every bucket; tensors are cut between rows where a part ends.
-- While backward continues every rank's messages go to the owners (all-to-all); an owner averages its part and encodes
-- the average again with a random stream of its own, and these are all-gathered, behind the next bucket's messages.
-- Both drawings are unbiased, so the result is; its variance is the mean's (1/P of one rank's) plus the second draw's.
--
-- Traffic does not grow with the number of ranks P: a rank receives (P - 1)/P of a step's messages on each of the two
-- ways, so both ways are encoded with P / (2 (P - 1)) times the budget given (ratio=, bytes=), and what a rank receives
-- a step is the budget, for any P. Compressors without such a budget (qsgd, ...) receive 2 (P - 1)/P messages.
local Coded = require "atomo.exchange.bucket.compressed"
local messages = require "atomo.exchange.messages"

local MIN_PIECE = 2048 -- elements of a piece; less goes to the neighbouring owner

local M = {most = 3} -- buckets of messages a step: each is cut up to P - 1 times

function M.refuses(o) return messages.refuses_again(o, "") end

--- Both ways are encoded with a share of the budget: 1 for two ranks, and one rank receives nothing.
function M.share(ranks) return ranks > 2 and ranks / (2 * (ranks - 1)) or nil end

--- A message's owner averages it.
function M.owner(m) return m.owner - 1 end

function M.program() return {"encode", "alltoall", "average", "encode_again", "allgather", "decode"} end

--- Joins pieces of one tensor that are too small to their neighbours.
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

--- Cuts neighbouring messages {index=, shape=, n=}, `total` entries together, into the parts of `ranks` owners: a row
-- belongs to the owner in whose part its middle lies. Returns pieces in order, their owners ascending (from 1).
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
      if #pieces == 1 then p.from = nil end -- whole
      out[#out + 1] = p
    end
  end
  for k = 2, #out do out[k].owner = math.max(out[k].owner, out[k - 1].owner) end
  return out
end

--- Replaces whole messages by pieces, bucket by bucket. In a bucket the messages ascend, as do the owners.
function M.cut(list, ranks)
  local buckets, pieces = Coded.cut(list, M.most), {}
  for b = #buckets, 1, -1 do -- ascending
    local bucket, total = {unpack(list, buckets[b].first, buckets[b].last)}, 0
    for _, m in ipairs(bucket) do total = total + m.n end
    for _, p in ipairs(M.cut_bucket(bucket, total, ranks)) do pieces[#pieces + 1] = p end
  end
  return pieces
end

return M
