-- Every compressor works with its defaults, every option at its bounds and with each of its choices; and every option
-- has an effect.
local atomo = require "atomo"

local STEPS = 5

local gradients = {}
setup(function()
  atomo.manual_seed(12)
  local still = atomo.randn(32, 3):matmul(atomo.randn(3, 72)):view(32, 3, 3, 8) -- of low rank, for spectral atoms
  for step = 1, STEPS do
    gradients[step] = still * (1 - step / 7) + atomo.randn(32, 3, 3, 8) * (step / 3)
    gradients[step]:view(-1):narrow(1, 1, 4 * step):mul_(step) -- large entries, for compressors that select entries
  end
end)

--- All that a receiver and a log would see of a few steps: what decodes, lengths, errors.
local function seen(spec)
  local c, parts = atomo.compressor(spec, {seed = 3}), {}
  c:set_ranks(2) -- for together
  for step, g in ipairs(gradients) do
    local m = c:encode(g, {step = step})
    local ghat, s = c:decode(m), c:stats()
    assert.equal(0, ghat:count_nonfinite())
    parts[step] = ("%s %d %.9g"):format(ghat:bytes(), m.nbytes, s.variance)
  end
  return table.concat(parts)
end

--- Values of an option: all of few, else its bounds and some between them.
local function values_of(o)
  if o.kind == "bool" then return {false, true} end
  if o.choices then return o.choices end
  local list = {o.min, o.max}
  for _, v in ipairs {0.5, 1, 2, 3, 7, 40} do
    if v > o.min and v < o.max and (o.kind ~= "int" or v % 1 == 0) then list[#list + 1] = v end
  end
  return list
end

--- Budgets at which all options matter: auto takes spectral atoms, too; rotated classes are drawn by chance.
local budgets = {rotated = 48, auto = 64, ["rotated sampling"] = 700}

local function budget_of(name, key) return budgets[name .. " " .. (key or "")] or budgets[name] end

local function spec_of(name, key, value)
  local spec = {name = name, [key] = value}
  if key ~= "ratio" and key ~= "bytes" and key ~= "atoms" then spec.ratio = budget_of(name, key) end
  return spec
end

for _, entry in ipairs(atomo.compressors()) do
  if not entry.make then -- those with `make` were declared by other specs
    describe(entry.name, function()
      local standard
      lazy_setup(function() standard = seen {name = entry.name, ratio = budgets[entry.name]} end)

      it("works with its defaults", function() assert.is_true(#standard > 0) end)

      for _, o in ipairs(entry.options) do
        it(("takes every %s, and heeds it"):format(o.key), function()
          if entry.name == "auto" and o.key == "atoms" then -- refused, see budget_spec
            return assert.is_false((pcall(atomo.compressor, "auto:atoms=3")))
          end
          if entry.name == "auto" and o.key == "together" then return end -- no fixed basis here: see together_spec
          local heeded, usual = false, standard
          if budget_of(entry.name, o.key) ~= budgets[entry.name] then
            usual = seen {name = entry.name, ratio = budget_of(entry.name, o.key)}
          end
          if o.key == "bytes" then -- shorter than an empty message: refused, see message_length_spec
            o = {key = "bytes", kind = "float", min = 14, max = o.max}
          end
          for _, v in ipairs(values_of(o)) do
            heeded = seen(spec_of(entry.name, o.key, v)) ~= usual or heeded
          end
          assert.equal(not (entry.name == "none" and o.key == "ef"), heeded) -- none has no error to feed back
        end)
      end
    end)
  end
end
