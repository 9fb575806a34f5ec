--- Dropout and the random streams of its masks.
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local brief = require "atomo.core.brief"
local S = require "atomo.nn.functional.support"
local func = require("atomo.autograd").operator
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise
local wrap, out, dense = T.wrap, T.out, S.dense

local F = {}

local draw = {rank = 0, step = 0, calls = 0, seedings = -1, seed = nil}

--- Resets the mask counter after a call of manual_seed, even with the same seed.
local function restart_if_seeded()
  local seedings = C.atomo_seedings()
  if draw.seedings ~= seedings then
    draw = {rank = 0, step = 0, calls = 0, seedings = seedings, seed = C.atomo_initial_seed()}
  end
end

--- Sets rank and step for the masks that follow. A mask depends only on (seed, rank, step, number of masks drawn since
-- this call). The training loop calls this before every step, so that a resumed run draws the same masks and ranks draw
-- different ones. Returns the former rank, step, calls; pass them to this function to restore them.
function F.dropout_stream(rank, step, calls)
  restart_if_seeded()
  local r, s, c = draw.rank, draw.step, draw.calls
  if rank then draw.rank, draw.step, draw.calls = rank, step, calls or 0 end
  return r, s, c
end

--- Returns the state of the mask stream, including the seed. F.put_dropout_state(state) restores it, whatever seed has
--- been set since, and returns the state before.
function F.dropout_state()
  restart_if_seeded()
  return {rank = draw.rank, step = draw.step, calls = draw.calls, seedings = draw.seedings, seed = draw.seed}
end

function F.put_dropout_state(state)
  restart_if_seeded()
  local now = draw
  draw = {rank = state.rank, step = state.step, calls = state.calls, seedings = now.seedings, seed = state.seed}
  return now
end

--- Returns the random stream of the next mask, and counts it as drawn.
function F.next_dropout_stream()
  restart_if_seeded()
  local seed = draw.seed
  local s = ffi.new "atomo_stream"
  s.seed[0], s.seed[1] = seed % 2 ^ 32, math.floor(seed / 2 ^ 32)
  s.purpose, s.rank, s.step, s.tensor = C.ATOMO_RNG_DROPOUT, draw.rank, draw.step, draw.calls
  draw.calls = draw.calls + 1
  return s
end

local dropout = func {
  name = "dropout",
  forward = function(ctx, x, p)
    local o = out()
    ctx.stream = F.next_dropout_stream()
    check(C.atomo_dropout(dense(x, "dropout: input").h, p, ctx.stream, o))
    return wrap(o[0])
  end,
  backward = function(ctx, gy)
    local o = out()
    check(C.atomo_dropout(dense(gy, "dropout: gy").h, ctx.inputs[2], ctx.stream, o))
    return wrap(o[0])
  end,
}

--- Returns p; raises unless 0 <= p <= 1. layer: first word of the error text.
function F.check_dropout(layer, p)
  if type(p) ~= "number" or not (p >= 0 and p <= 1) then
    raise(("%s: p is %s, expected 0 <= p <= 1"):format(layer, brief(p)))
  end
  return p
end

--- Returns p, 0.5 for nil, after checking both arguments.
local function checked(name, p, training)
  if training ~= nil and type(training) ~= "boolean" then
    raise(("%s: training is %s, expected true or false"):format(name, brief(training)))
  end
  return F.check_dropout(name, p == nil and 0.5 or p)
end

--- Zeroes each element with probability p (default 0.5) and scales the rest by 1/(1-p). With training = false it
--- returns x.
---@param x atomo.Tensor
---@param p number?
---@param training boolean?
---@return atomo.Tensor
---@usage F.dropout(x, 0.5, false):numel() == x:numel() --> true
function F.dropout(x, p, training)
  p = checked("dropout", p, training)
  if training == false or p == 0 then return x end
  if p == 1 then return x * 0 end
  return dropout(x, p)
end

--- Zeroes each channel of each image of x [N,H,W,C] with probability p (default 0.5) and scales the rest by 1/(1-p).
--- With training = false it returns x.
---@param x atomo.Tensor
---@param p number?
---@param training boolean?
---@return atomo.Tensor
---@usage F.dropout2d(x, 0.5, false):numel() == x:numel() --> true
function F.dropout2d(x, p, training)
  p = checked("dropout2d", p, training)
  if T.expect(x, "dropout2d: input", "f32"):dim() ~= 4 then
    raise(("dropout2d: input is %s, expected [N,H,W,C]"):format(T.shape_text(x)))
  end
  if training == false or p == 0 then return x end
  return x * F.dropout(T.ones(x:size(1), 1, 1, x:size(4)), p)
end

return F
