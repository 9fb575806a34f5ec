--- Blocks: state that holds while a function runs (no_grad, enable_grad, scope, a running backward). Each coroutine has
-- its own blocks. When it yields inside a block, the state of the coroutine that resumed it is restored; when it is
-- resumed, its own state is. Outside its own blocks it sees the state of its resumer. To switch the states, this file
-- replaces coroutine.resume and coroutine.wrap.
local M = {}

local states = {}
local suspended = setmetatable({}, {__mode = "k"}) -- coroutine -> its open blocks, state by state

---@class atomo.BlockState
---@field value any          what holds now
---@field blocks integer     open blocks of the running coroutine
---@field floor integer      value of `blocks` at which the outermost block ends: 0 in a coroutine, -1 (never) outside
---@field outer any          the resumer's value

--- Makes a state that is `value` outside all blocks. suspend(value, blocks), if given, is called when a coroutine
--- yields inside `blocks` open blocks, and resume(value, blocks) when it is resumed.
---@return atomo.BlockState
function M.state(value, suspend, resume)
  local s = {value = value, blocks = 0, floor = -1, outer = nil, suspend = suspend, resume = resume}
  states[#states + 1] = s
  return s
end

--- Opens a block in which the state is `value`; returns the value before it, to be passed to leave().
function M.enter(s, value)
  local saved = s.value
  s.value, s.blocks = value, s.blocks + 1
  return saved
end

function M.leave(s, saved)
  s.blocks = s.blocks - 1
  if s.blocks == s.floor then s.value = s.outer else s.value = saved end
end

local function finish(s, saved, ok, ...)
  M.leave(s, saved)
  if not ok then error((...), 0) end
  return ...
end

--- Runs fn(...) in a block that also ends when fn raises; returns fn's results.
function M.run(s, value, fn, ...) return finish(s, M.enter(s, value), pcall(fn, ...)) end

-- ---- changes that are undone ----------------------------------------------------------------------------------------

local function undo(change, blocks)
  for _ = 1, blocks do
    change.undo()
    change = change.outer
  end
end

local function apply(change, blocks)
  if blocks > 1 then apply(change.outer, blocks - 1) end
  change.apply()
end

local changes = M.state(nil, undo, apply) -- value: the innermost change {apply=, undo=, outer=}

local function finish_change(saved, change, ok, ...)
  M.leave(changes, saved)
  change.undo()
  if not ok then error((...), 0) end
  return ...
end

--- Runs fn(...) between apply() and undo(), which change objects (modes of modules, values of weights); returns fn's
--- results. Undone also when fn raises, and while a coroutine that has yielded inside is not running.
function M.change(apply_it, undo_it, fn, ...)
  local change = {apply = apply_it, undo = undo_it, outer = changes.value}
  apply_it()
  return finish_change(M.enter(changes, change), change, pcall(fn, ...))
end

-- ---- coroutines ----------------------------------------------------------------------------------------------------

--- Installs the states of co, which is about to run; returns those of the running coroutine, for switch_out.
local function switch_in(co)
  local own, here = suspended[co], {}
  for i, s in ipairs(states) do
    here[i] = {value = s.value, blocks = s.blocks, floor = s.floor, outer = s.outer}
    local inside = own and own[i]
    s.outer, s.floor = s.value, 0
    s.blocks = inside and inside.blocks or 0
    if inside then
      s.value = inside.value
      if s.resume then s.resume(s.value, s.blocks) end
    end
  end
  suspended[co] = nil
  return here
end

local function switch_out(co, here, ...)
  local own
  for i, s in ipairs(states) do
    if s.blocks > 0 and coroutine.status(co) == "suspended" then
      own = own or {}
      own[i] = {value = s.value, blocks = s.blocks}
      if s.suspend then s.suspend(s.value, s.blocks) end
    end
    local was = here[i]
    s.value, s.blocks, s.floor, s.outer = was.value, was.blocks, was.floor, was.outer
  end
  suspended[co] = own
  return ...
end

local resume = coroutine.resume

function coroutine.resume(co, ...)
  if type(co) ~= "thread" then return resume(co, ...) end
  return switch_out(co, switch_in(co), resume(co, ...))
end

local function results(ok, ...)
  if not ok then error((...), 0) end
  return ...
end

function coroutine.wrap(fn)
  local co = coroutine.create(fn)
  return function(...) return results(coroutine.resume(co, ...)) end
end

return M
