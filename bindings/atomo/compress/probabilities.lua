--- atomo.probabilities: Algorithm 1 of the ATOMO paper, for tensors and tables (stage 5; runtime/sampling/budget.c).
local f = require "atomo.ffi"
local T = require "atomo.tensor"
local ffi, C, check, raise = f.ffi, f.C, f.check, f.raise

local doubles = ffi.typeof "double[?]"

local function contiguous(t, what)
  T.expect(t, "probabilities: " .. what, "f32")
  return t:is_contiguous() and t or t:contiguous()
end

--- Algorithm 1: returns keep-probabilities p_i = min(1, |lambda_i| / tau) with sum p_i = s. With cost, p_i = min(1,
--- |lambda_i| / sqrt(mu cost_i)) with sum cost_i p_i = s. The result is a tensor or table like lambda.
---@param lambda atomo.Tensor|number[]
---@param s number
---@param cost atomo.Tensor|number[]|nil
---@return T|number[]
---@usage atomo.probabilities({4, 1, 1}, 2)[1] --> 1
local function probabilities(lambda, s, cost)
  if type(s) ~= "number" then
    raise(("probabilities: s is %s, expected a number"):format(s == nil and "missing" or "a " .. type(s)))
  end
  if T.is_tensor(lambda) then
    if cost ~= nil and not T.is_tensor(cost) then cost = T.tensor(cost) end
    local out = T.out()
    check(C.atomo_probabilities(contiguous(lambda, "lambda").h, s,
      cost and contiguous(cost, "cost").h or nil, out))
    return T.wrap(out[0])
  end
  if type(lambda) ~= "table" then
    raise(("probabilities: lambda is %s, expected a tensor or a table"):format(
      lambda == nil and "missing" or "a " .. type(lambda)))
  end
  if T.is_tensor(cost) then cost = cost:totable() end
  local n = #lambda
  if cost and #cost ~= n then
    raise(("probabilities: lambda has %d numbers, cost has %d"):format(n, #cost))
  end
  local l, c, p = doubles(math.max(n, 1)), cost and doubles(math.max(n, 1)), doubles(math.max(n, 1))
  for i = 1, n do
    for what, list in pairs {lambda = lambda, cost = cost} do
      if type(list[i]) ~= "number" then
        raise(("probabilities: %s[%d] is a %s, expected a number"):format(what, i, type(list[i])))
      end
    end
    l[i - 1] = lambda[i]
    if c then c[i - 1] = cost[i] end
  end
  check(C.atomo_probabilities_f64(l, c, n, s, p))
  local out = {}
  for i = 1, n do out[i] = p[i - 1] end
  return out
end

return probabilities
