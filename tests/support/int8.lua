--- A free compressor for specs: rounds entries stochastically to 127 levels of each sign.
local atomo = require "atomo"

--- Declares it by atomo.codec. more: fields that replace or add to those here.
---@param name string
---@param more table?
return function(name, more)
  local t = {
    unbiased = true,
    encode = function(g, _, info)
      local scale = math.max(g:norm_value(math.huge), 1e-30) / 127
      return {scale, ((g / scale + info.rand(g:shape())):floor() + 128):to "u8"}
    end,
    decode = function(parts) return (parts[2]:float() - 128) * parts[1] end,
  }
  for key, value in pairs(more or {}) do t[key] = value end
  atomo.codec(name, t)
end
