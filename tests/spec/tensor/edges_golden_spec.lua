-- Every function of tensors, atomo.F and linear algebra at the edges of its domain (0, -0, subnormal, 1e30, FLT_MAX,
-- inf, nan, ties), forward and gradient, beside PyTorch and NumPy: tests/golden/make_edges.py.
local edges = require "support.edges"
local rows = require "support.edge_rows"

local function same(got, want, row, what)
  local text = edges.difference(got, want, row.ulp, row.abs)
  assert.is_nil(text, what .. ": " .. tostring(text))
end

describe("at the edges, as PyTorch:", function()
  for _, case in ipairs(edges.cases()) do
    it(case.name, function()
      local row = rows.of(case.name)
      assert.is_truthy(row, "no row in tests/support/edge_rows.lua")
      local y, gradients = edges.run(row.fn, case.inputs, case.gradients ~= nil)
      same(y, case.result, row, "result")
      for i, want in ipairs(case.gradients or {}) do
        if want then
          assert.is_truthy(gradients[i], "no gradient " .. i)
          same(gradients[i], want, row, "gradient " .. i)
        end
      end
    end)
  end
end)
