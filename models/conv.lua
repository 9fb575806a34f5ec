--- The convolutions of these networks: nn.Conv2d that begins as He et al. 2015 say for ReLU, and torchvision's ResNets
-- and VGGs do: normal with variance 2 / fan_out, the bias zero. (nn.Conv2d by itself begins as PyTorch's.)
local nn = require("atomo").nn

local function he(weight, bias)
  nn.init.kaiming_normal_(weight, {mode = "fan_out", nonlinearity = "relu"})
  if bias then nn.init.zeros_(bias) end
end

--- conv(in, out, kernel, opts): as nn.Conv2d's.
return function(in_channels, out_channels, kernel, opts)
  local o = {init = he}
  for name, value in pairs(opts or {}) do o[name] = value end
  return nn.Conv2d(in_channels, out_channels, kernel, o)
end
