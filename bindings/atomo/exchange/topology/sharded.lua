--- Topology sharded: every rank owns an equal part of every batch; tensors are cut between rows where a part ends.
-- While backward goes on every rank's messages go to the owners (all-to-all); an owner averages its part and encodes
-- the average again with a random stream of its own, and these are all-gathered, behind the next batch's messages.
-- Both drawings are unbiased, so the result is; its variance is the mean's (1/P of one rank's) plus the second draw's.
--
-- Traffic does not grow with the number of ranks P: a rank receives (P - 1)/P of a step's messages on each of the two
-- ways, so both ways are encoded with P / (2 (P - 1)) times the budget given (ratio=, bytes=), and what a rank receives
-- a step is the budget, for any P. Compressors without such a budget (qsgd, ...) receive 2 (P - 1)/P messages.
local batches = require "atomo.exchange.bucket.compressed"
local class_of = require "atomo.exchange.bucket.class"
local messages = require "atomo.exchange.messages"

local MOST = 3 -- batches a step: each is cut up to P - 1 times
local MIN_PIECE = 2048 -- elements of a piece; less goes to the neighbouring owner

local M = {ready = batches.ready, settle = batches.settle, give = batches.give}

function M.refuses(o) return messages.refuses_again(o, "") end

--- Both ways are encoded with a share of the budget.
function M.check(self)
  local P = self.comm.size
  if P < 3 then return end -- the share is 1 for two ranks, and one rank receives nothing
  self.share = P / (2 * (P - 1))
  self.compressor = messages.compressor(self, "up")
end

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
function M.cut(list, total, ranks)
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

--- Replaces whole messages by pieces, group by group. In a group the messages ascend, as do the owners.
local function cut_all(self)
  local groups, pieces = batches.group(self, {}, MOST), {}
  for b = #groups, 1, -1 do -- ascending
    local list, total = {}, 0
    for k = groups[b].first, groups[b].last do
      list[#list + 1] = self.messages[k]
      total = total + self.messages[k].n
    end
    for _, p in ipairs(M.cut(list, total, self.comm.size)) do pieces[#pieces + 1] = p end
  end
  self.messages = pieces
end

--- Messages first .. last of a batch by owner: a list of {first=, last=}, where last < first for none.
local function parts_of(self, batch)
  local parts = {}
  for r = 1, self.comm.size do parts[r] = {first = batch.first, last = batch.first - 1} end
  for k = batch.first, batch.last do
    local part = parts[self.messages[k].owner]
    if part.last < part.first then part.first = k end
    part.last = k
  end
  return parts
end

function M.plan(self)
  local function owner(k) return self.messages[k].owner - 1 end
  messages.split(self)
  cut_all(self)
  batches.plan(self, class_of(self), owner, MOST)
  for _, batch in ipairs(self.batches) do batch.parts = parts_of(self, batch) end
  batches.plan_answers(self, function(batch)
    local mine = batch.parts[self.comm.rank + 1]
    return mine.first, mine.last
  end, true)
  batches.plan_results(self, {from = "answer", block = owner, blocks = self.comm.size, rank = self.comm.size})
end

--- A batch's messages to their owners.
function M.send(self, batch) return batch:out(self, "alltoall") end

--- This rank's part of a batch: averaged, encoded again, to all.
function M.answer(self, batch)
  batch:reply_with(self)
  return batch:back(self, "allgather")
end

return M
